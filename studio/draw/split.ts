// A text split into tokens: every token in a box with its id below, in lines that fit the width.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { fitted } from "./heatmap";
import { type Item, listMarks, type Mark, type Measure, type Scene } from "./scene";
import { css, mixed, type Theme } from "./theme";
import { csvOf, quoted, tokenLabel } from "./words";

export interface SplitData {
  kind: "split";
  title: string;
  tokens: readonly { text: string; id: number }[];
}

const [SIZE, ID_SIZE] = [14, 11];
const [TALL, GAP, STEP] = [40, 4, 48]; // pixels: of a box, between boxes, from line to line

export const split: Module<SplitData> = { scene, csv, title: (data) => data.title };

/** Draw the boxes into an element; `onSelect` gets the number of a token. */
export function draw(
  target: HTMLElement,
  data: SplitData,
  theme: Theme,
  options?: Options,
): Drawing<SplitData> {
  return mount(split, target, data, theme, options);
}

function scene(data: SplitData, theme: Theme, width: number, measure: Measure): Scene {
  const items: Item[] = [];
  const marks: Mark[] = [];
  let [left, top] = [2, 2];
  data.tokens.forEach((token, i) => {
    const text = fitted(tokenLabel(token.text, 60), width - 20, measure, SIZE);
    const id = String(token.id);
    const wide = Math.max(measure(text, SIZE), measure(id, ID_SIZE)) + 14;
    if (left > 2 && left + wide > width - 2) [left, top] = [2, top + STEP];
    const accent = theme.accents[i % theme.accents.length] ?? theme.text;
    const box = { x: left, y: top, width: wide, height: TALL };
    const middle = { kind: "text" as const, x: left + wide / 2, anchor: "middle" as const };
    items.push(
      { kind: "rect", ...box, radius: 5, fill: css(mixed(accent, theme.background, 0.25)), stroke: accent },
      { ...middle, y: top + 14, text, fill: theme.text, size: SIZE },
      { ...middle, y: top + 30, text: id, fill: theme.text, size: ID_SIZE },
    );
    marks.push({ ...box, label: tokenWords(data, i) });
    left += wide + GAP;
  });
  return { width, height: top + TALL + 4, items, words: words(data), marks: listMarks(marks) };
}

function tokenWords(data: SplitData, i: number): string {
  const token = data.tokens[i];
  return token ? `Position ${i}: ${quoted(token.text)}, token ${token.id}` : "";
}

function words(data: SplitData): string {
  const few = data.tokens.slice(0, 40).map((token) => `${quoted(token.text)} ${token.id}`);
  const more = data.tokens.length - few.length;
  return `Boxes, one for each token, with its id: ${few.join(", ")}${more > 0 ? ` and ${more} more` : ""}.`;
}

function csv(data: SplitData): string {
  return csvOf([["position", "id", "text"], ...data.tokens.map((token, i) => [i, token.id, token.text])]);
}
