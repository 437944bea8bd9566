// Words and numbers as pictures and readers of screens get them.

const MARKS: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
// Control characters, those that reorder text, lone surrogates, and every space but the plain one.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const RIGHT_TO_LEFT = /\p{Script=Hebrew}|\p{Script=Arabic}/u;

/**
 * Return a token's label: spaces at its ends as dots, escapes for what cannot be seen, cut to `most` letters.
 */
export function tokenLabel(text: string, most = 24): string {
  const shown = text
    .replace(/^ +| +$/g, (found) => "·".repeat(found.length))
    .replace(/[\n\r\t]/g, (found) => MARKS[found] ?? found)
    .replace(UNSEEN, codeOf);
  const letters = [...shown];
  const short = letters.length <= most ? shown : `${letters.slice(0, most - 1).join("")}…`;
  return RIGHT_TO_LEFT.test(short) ? `\u200e${short}` : short;
}

function codeOf(letter: string): string {
  return `\\u${(letter.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`;
}

/** Return a token for a sentence: in quotes, with its spaces. */
export function quoted(text: string): string {
  const escaped = text.replace(/[\n\r\t]/g, (found) => MARKS[found] ?? found);
  return `“${escaped.replace(UNSEEN, codeOf)}”`;
}

/** Return a number with up to `digits` significant digits. */
export function figure(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e7))
    return value.toExponential(digits - 1);
  const whole = Math.abs(value) >= 10 ** digits;
  return value.toLocaleString(
    "en",
    whole ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits },
  );
}

/** Return a number of an axis; a year has no comma. */
export function valueOf(value: number, unit: string): string {
  return /year/i.test(unit) ? String(value) : figure(value, 4);
}

/** Return a probability as a percentage with three significant digits, as the pages in Python write it. */
export function percent(probability: number): string {
  const value = 100 * probability;
  if (value < 0.0001) return value > 0 ? "< 0.0001 %" : "0 %";
  const places = Math.max(0, Math.min(4, 2 - Math.floor(Math.log10(value))));
  return `${value.toFixed(places)} %`;
}

/** Return a sentence in lines that are at most so wide, broken at spaces; a longer word stays whole. */
export function wrapped(text: string, most: number, width: (line: string) => number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && width(longer) <= most) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** Return a cell of a CSV file, in quotes where they are needed. */
function cell(value: string | number | null): string {
  const text = value === null ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Return rows as comma-separated values; the first row has the names of the columns. */
export function csvOf(rows: readonly (readonly (string | number | null)[])[]): string {
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}
