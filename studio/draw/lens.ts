// The logit lens as a grid: the token that the model would choose after each block, coloured by its
// probability.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { fitted, scaleBar, shade } from "./heatmap";
import { gridMarks, type Grid, type Item, type Measure, type Scene } from "./scene";
import { readableOn, type Theme } from "./theme";
import { csvOf, percent, quoted, tokenLabel } from "./words";

export interface LensCell {
  text: string;
  probability: number;
}

export interface LensData {
  kind: "lens";
  title: string;
  /** The text, one column for each token; with an `axis`, one for each value of it, such as a step. */
  tokens: readonly string[];
  axis?: string;
  /** The blocks, from the first to the last; the picture has the last on top. */
  layers: readonly string[];
  cells: readonly (readonly LensCell[])[];
  unit?: string;
}

const SIZE = 12;
const TALL = 22;
const LEAST = 46; // pixels of a column; a longer text scrolls
const MOST = 120;
const RANGE = { low: 0, high: 1, diverging: false };

export const lens: Module<LensData> = { scene, csv, title: (data) => data.title };

/** Draw the grid into an element. */
export function draw(
  target: HTMLElement,
  data: LensData,
  theme: Theme,
  options?: Options,
): Drawing<LensData> {
  return mount(lens, target, data, theme, options);
}

function scene(data: LensData, theme: Theme, width: number, measure: Measure): Scene {
  const { layers, tokens } = data;
  const left = Math.max(...layers.map((text) => measure(text, SIZE))) + 12;
  const cell = Math.min(Math.max((width - left - 74) / Math.max(tokens.length, 1), LEAST), MOST);
  const top = 26;
  const grid: Grid = {
    x: left,
    y: top,
    cellWidth: cell,
    cellHeight: TALL,
    rows: layers.length,
    columns: tokens.length,
  };
  const items: Item[] = tokens.map((text, column) => ({
    kind: "text",
    x: left + (column + 0.5) * cell,
    y: 13,
    text: fitted(tokenLabel(text), cell - 4, measure),
    fill: theme.text,
    size: SIZE,
    anchor: "middle",
    bold: true,
  }));
  if (data.axis)
    items.push({
      kind: "text",
      x: left - 8,
      y: 13,
      text: data.axis,
      fill: theme.muted,
      size: SIZE,
      anchor: "end",
    });
  for (let row = 0; row < layers.length; row++) {
    const y = top + row * TALL;
    const layer = layers.length - 1 - row;
    items.push({
      kind: "text",
      x: left - 8,
      y: y + TALL / 2,
      text: layers[layer] ?? "",
      fill: theme.muted,
      size: SIZE,
      anchor: "end",
    });
    data.cells[layer]?.forEach(({ text, probability }, column) => {
      const colour = shade(probability, RANGE, theme);
      if (!colour) return;
      const x = left + column * cell;
      items.push(
        { kind: "rect", x, y, width: cell - 1, height: TALL - 1, fill: `rgb(${colour.join(", ")})` },
        {
          kind: "text",
          x: x + cell / 2,
          y: y + TALL / 2,
          text: fitted(tokenLabel(text), cell - 6, measure),
          fill: readableOn(colour),
          size: SIZE,
          anchor: "middle",
        },
      );
    });
  }
  const right = left + cell * tokens.length;
  const scale = { ...RANGE, unit: data.unit ?? "probability" };
  items.push(
    ...scaleBar(scale, theme, right + 14, top, Math.min(Math.max(layers.length * TALL, 60), 180), measure),
  );
  return {
    width: Math.max(width, Math.ceil(right + 74)),
    height: top + Math.max(layers.length * TALL, 70) + 6,
    items,
    words: words(data),
    marks: gridMarks(
      grid,
      (row, column) => cellWords(data, layers.length - 1 - row, column),
      Math.max(tokens.length - 1, 0),
    ),
  };
}

function cellWords(data: LensData, layer: number, column: number): string {
  const cell = data.cells[layer]?.[column];
  if (!cell) return "";
  const guess = `${quoted(cell.text)} ${percent(cell.probability)}`;
  const name = data.tokens[column] ?? "";
  return `${data.layers[layer]}, ${data.axis ? `${data.axis} ${name}` : `after ${quoted(name)}`}: ${guess}`;
}

function words(data: LensData): string {
  const last = data.tokens.length - 1;
  const layers = data.layers.length;
  const path = [...new Set([0, Math.floor(layers / 2), layers - 1])].map((layer) =>
    cellWords(data, layer, last),
  );
  const plural = data.tokens.length === 1 ? "" : "s";
  const size = `A grid of ${layers} blocks and ${data.tokens.length} ${data.axis ?? "token"}${plural}`;
  return `${size}; each cell has the model's guess there. ${path.join("; ")}.`;
}

function csv(data: LensData): string {
  const rows = data.cells.flatMap((row, layer) =>
    row.map((cell, column) => [
      data.layers[layer] ?? "",
      column,
      data.tokens[column] ?? "",
      cell.text,
      cell.probability,
    ]),
  );
  return csvOf([["layer", "position", data.axis ?? "token", "guess", "probability"], ...rows]);
}
