// The sampling chain of the engine in the browser: logits -> top_k -> top_p -> min_p -> temperature, on
// logits in falling order. A test compares it with the engine's own (tests/look/test_drawn_pages.py).

export interface Settings {
  temperature: number;
  topK: number; // 0: off
  topP: number; // 1: off
  minP: number; // 0: off
}

export const OFF: Settings = { temperature: 1, topK: 0, topP: 1, minP: 0 };

export interface Outcome {
  /** The probability of each of the likeliest tokens; 0 for one that was removed. */
  probabilities: Float64Array;
  /** The number of tokens that can be drawn. */
  left: number;
  /** Bits. */
  entropy: number;
}

/** Return the probabilities under these settings; a temperature of 0 takes the likeliest token. */
export function outcome(falling: Float32Array | Float64Array, settings: Settings): Outcome {
  const count = falling.length;
  if (settings.temperature <= 0) {
    const probabilities = new Float64Array(count);
    probabilities[0] = 1;
    return { probabilities, left: 1, entropy: 0 };
  }
  const first = falling[0] ?? 0;
  let left = settings.topK > 0 ? Math.min(settings.topK, count) : count;
  if (settings.topP < 1) {
    let mass = 0;
    for (let i = 0; i < left; i++) mass += Math.exp((falling[i] as number) - first);
    let sum = 0;
    let kept = 0;
    while (kept < left && (sum < settings.topP * mass || kept === 0))
      sum += Math.exp((falling[kept++] as number) - first);
    left = kept;
  }
  if (settings.minP > 0) {
    const least = first + Math.log(settings.minP);
    while (left > 1 && (falling[left - 1] as number) < least) left -= 1;
  }
  const probabilities = new Float64Array(count);
  let total = 0;
  for (let i = 0; i < left; i++)
    total += probabilities[i] = Math.exp(((falling[i] as number) - first) / settings.temperature);
  let entropy = 0;
  for (let i = 0; i < left; i++) {
    const p = (probabilities[i] as number) / total;
    probabilities[i] = p;
    if (p > 0) entropy -= p * Math.log2(p);
  }
  return { probabilities, left, entropy };
}
