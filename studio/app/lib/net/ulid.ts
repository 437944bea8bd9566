// Names of conversations, nodes and runs that the page makes itself: ULIDs, which sort by time.

const LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; // Crockford's base 32
const TIME_LETTERS = 10;
const RANDOM_LETTERS = 16;

let lastTime = -1;
let lastRandom: number[] = [];

/** Return a new name of 26 letters. Of two made in the same millisecond the later one sorts behind. */
export function ulid(now: number = Date.now()): string {
  if (now > lastTime) {
    lastTime = now;
    lastRandom = [...crypto.getRandomValues(new Uint8Array(RANDOM_LETTERS))].map((value) => value & 31);
  } else {
    increment(lastRandom);
  }
  return time(lastTime) + lastRandom.map((value) => LETTERS[value]).join("");
}

function time(now: number): string {
  let rest = now;
  let text = "";
  for (let i = 0; i < TIME_LETTERS; i++) {
    text = LETTERS[rest % 32] + text;
    rest = Math.floor(rest / 32);
  }
  return text;
}

function increment(digits: number[]): void {
  for (let i = digits.length - 1; i >= 0; i--) {
    const digit = digits[i] as number;
    digits[i] = (digit + 1) % 32;
    if (digit < 31) return;
  }
}
