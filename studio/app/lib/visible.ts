// White space and odd letters of tokens, made visible.

const SIGNS: Record<string, string> = { "\n": "⏎", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };

/** A token's text with signs for line breaks and tabs, and for blanks at its ends. */
export function visible(text: string): string {
  if (text === "") return "∅";
  if (text.startsWith("bytes:")) return text.slice("bytes:".length);
  return text
    .replace(/[\n\r\t\u00a0]/g, (letter) => SIGNS[letter] ?? letter)
    .replace(/^ +| +$/g, (blanks) => "·".repeat(blanks.length))
    .replace(
      /[\u0000-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
      (letter) => `\\u${hex(letter)}`,
    );
}

function hex(letter: string): string {
  return letter.charCodeAt(0).toString(16).padStart(4, "0");
}
