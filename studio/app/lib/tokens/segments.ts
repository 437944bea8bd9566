// Cuts long answers into blocks, so that a browser lays out and paints only those in sight.
import type { Token } from "../types";

/** A run of tokens that ends with a line break (or with the text). */
export interface Segment {
  start: number;
  end: number; // exclusive
  lines: number; // about so many lines high, while it is out of sight
}

const LEAST = 60; // tokens of a block: fewer would be many elements, more would be slow to lay out
const LETTERS_A_LINE = 90;

/**
 * Cut at line breaks, at least LEAST tokens apart. Blocks in front of the last one never change by appending.
 */
export function segments(tokens: readonly Pick<Token, "text">[]): Segment[] {
  const cut: Segment[] = [];
  let start = 0;
  let lines = 0;
  let letters = 0;
  tokens.forEach(({ text }, i) => {
    letters += text.length;
    if (text.includes("\n")) {
      lines += Math.max(1, Math.ceil(letters / LETTERS_A_LINE)) + text.split("\n").length - 2;
      letters = 0;
    }
    if (text.endsWith("\n") && i + 1 - start >= LEAST) {
      cut.push({ start, end: i + 1, lines: Math.max(1, lines) });
      start = i + 1;
      lines = 0;
    }
  });
  if (start < tokens.length || cut.length === 0) {
    lines += Math.ceil(letters / LETTERS_A_LINE);
    cut.push({ start, end: tokens.length, lines: Math.max(1, lines) });
  }
  return cut;
}
