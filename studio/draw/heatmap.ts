// A heat map: one coloured cell for each row and column, a scale beside it, numbers in cells that have room.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { gridMarks, type Grid, type Item, type Measure, type Scene } from "./scene";
import { colourAt, readableOn, rgb, type Scale, type Theme } from "./theme";
import { csvOf, figure, quoted, tokenLabel } from "./words";

export interface HeatmapData {
  kind: "heatmap";
  title: string;
  rows: readonly string[];
  columns: readonly string[];
  /** Rows of numbers; null for a masked cell. */
  values: readonly (readonly (number | null)[])[];
  low: number;
  high: number;
  diverging: boolean;
  unit: string;
  /** What a cell without a number is called, which is grey then; left out, it is masked and empty. */
  missing?: string;
}

const SIZE = 12; // pixels of labels
const SCALE_WIDTH = 74;
const LARGEST = 44; // pixels of a cell
const MOST_LABEL = 130; // pixels of a label
const NUMBERS_FROM = 34; // pixels of a cell that has room for its number

export const heatmap: Module<HeatmapData> = { scene, csv, title: (data) => data.title };

/** Draw a heat map into an element. */
export function draw(
  target: HTMLElement,
  data: HeatmapData,
  theme: Theme,
  options?: Options,
): Drawing<HeatmapData> {
  return mount(heatmap, target, data, theme, options);
}

function scene(data: HeatmapData, theme: Theme, width: number, measure: Measure): Scene {
  const rows = data.rows.map((text) => tokenLabel(text));
  const columns = data.columns.map((text) => tokenLabel(text));
  const wide = (labels: string[]): number =>
    Math.min(Math.max(0, ...labels.slice(0, 400).map((text) => measure(text, SIZE))), MOST_LABEL);
  const left = wide(rows) + 10;
  const room = width - left - SCALE_WIDTH;
  const cell = Math.max(Math.min(room / Math.max(columns.length, 1), LARGEST), 1);
  const tall = Math.min(Math.max(cell, rows.length <= 60 ? 16 : 3), LARGEST);
  const turned = wide(columns) > cell - 4;
  const top = (turned ? wide(columns) : SIZE) + 12;
  const grid: Grid = {
    x: left,
    y: top,
    cellWidth: cell,
    cellHeight: tall,
    rows: rows.length,
    columns: columns.length,
  };
  const bottom = top + tall * rows.length;
  const right = left + cell * columns.length + 16;
  const scale = Math.max(Math.min(bottom - top, 160), 60);
  const beside = measure(data.unit, 11) <= scale; // else the meaning of the colours stands below the map
  const items: Item[] = [
    raster(data, theme, grid),
    ...labels(rows, columns, grid, turned, theme, measure),
    ...numbers(data, theme, grid),
    ...scaleBar(beside ? data : { ...data, unit: "" }, theme, right, top, scale, measure),
  ];
  let end = Math.ceil(Math.max(bottom, top + scale)) + 8;
  const below = [...(beside ? [] : [data.unit]), ...(data.missing ? [`grey: ${data.missing}`] : [])];
  for (const words of below) {
    const text = fitted(words, width - left, measure, 11);
    items.push({ kind: "text", x: left, y: end + 8, text, fill: theme.muted, size: 11 });
    end += 20;
  }
  return {
    width: Math.max(width, Math.ceil(left + cell * columns.length + SCALE_WIDTH)),
    height: end,
    items,
    words: words(data),
    marks: gridMarks(grid, (row, column) => cellWords(data, row, column), start(data)),
  };
}

/** Return the colour of a value; masked cells have the colour of the background. */
export function shade(
  value: number | null | undefined,
  data: Pick<HeatmapData, "low" | "high" | "diverging">,
  theme: Theme,
) {
  const scale: Scale = data.diverging ? theme.diverging : theme.sequential;
  const share =
    value === null || value === undefined ? Number.NaN : (value - data.low) / (data.high - data.low || 1);
  return Number.isNaN(share) ? null : colourAt(scale, share);
}

function raster(data: HeatmapData, theme: Theme, grid: Grid): Item {
  const { rows, columns } = grid;
  const pixels = new Uint8ClampedArray(4 * rows * columns);
  const empty = data.missing ? rgb(theme.muted) : null;
  data.values.forEach((row, r) =>
    row.forEach((value, c) => {
      const colour = shade(value, data, theme) ?? empty;
      if (colour) pixels.set([...colour, 255], 4 * (r * columns + c));
    }),
  );
  const { x, y, cellWidth, cellHeight } = grid;
  return {
    kind: "raster",
    x,
    y,
    width: cellWidth * columns,
    height: cellHeight * rows,
    columns,
    rows,
    pixels,
  };
}

function labels(
  rows: readonly string[],
  columns: readonly string[],
  grid: Grid,
  turned: boolean,
  theme: Theme,
  measure: Measure,
): Item[] {
  const items: Item[] = [];
  const { x, y, cellWidth, cellHeight } = grid;
  const everyRow = Math.max(1, Math.ceil((SIZE + 2) / cellHeight));
  const across = turned ? SIZE + 2 : Math.max(...columns.map((text) => measure(text, SIZE))) + 6;
  const everyColumn = Math.max(1, Math.ceil(across / cellWidth));
  rows.forEach((text, row) => {
    if (row % everyRow) return;
    const place = { x: x - 6, y: y + (row + 0.5) * cellHeight };
    items.push({
      kind: "text",
      ...place,
      text: fitted(text, MOST_LABEL, measure),
      fill: theme.text,
      size: SIZE,
      anchor: "end",
    });
  });
  columns.forEach((text, column) => {
    if (column % everyColumn) return;
    const place = { x: x + (column + 0.5) * cellWidth, y: y - (turned ? 6 : SIZE / 2 + 4) };
    const shown = turned ? fitted(text, MOST_LABEL, measure) : text;
    items.push({
      kind: "text",
      ...place,
      text: shown,
      fill: theme.text,
      size: SIZE,
      turned,
      anchor: turned ? "start" : "middle",
    });
  });
  return items;
}

/** Return a text cut to a width in pixels. */
export function fitted(text: string, most: number, measure: Measure, size = SIZE): string {
  if (measure(text, size) <= most) return text;
  const letters = [...text];
  while (letters.length > 1 && measure(`${letters.join("")}…`, size) > most) letters.pop();
  return `${letters.join("")}…`;
}

function numbers(data: HeatmapData, theme: Theme, grid: Grid): Item[] {
  if (grid.cellWidth < NUMBERS_FROM || grid.rows * grid.columns > 800) return [];
  return data.values.flatMap((row, r) =>
    row.flatMap((value, c): Item[] => {
      const colour = shade(value, data, theme);
      if (!colour || value === null) return [];
      const x = grid.x + (c + 0.5) * grid.cellWidth;
      const y = grid.y + (r + 0.5) * grid.cellHeight;
      return [
        { kind: "text", x, y, text: short(value), fill: readableOn(colour), size: 11, anchor: "middle" },
      ];
    }),
  );
}

function short(value: number): string {
  const text = Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2);
  return text.replace(/^(-?)0\./, "$1.");
}

/** Return a colour scale with its ends and its meaning, from top (high) to bottom (low). */
export function scaleBar(
  data: Pick<HeatmapData, "low" | "high" | "diverging" | "unit">,
  theme: Theme,
  x: number,
  y: number,
  height: number,
  measure: Measure,
): Item[] {
  const steps = 64;
  const pixels = new Uint8ClampedArray(4 * steps);
  for (let i = 0; i < steps; i++) {
    const value = data.high - ((i + 0.5) / steps) * (data.high - data.low);
    pixels.set([...(shade(value, data, theme) ?? [0, 0, 0]), 255], 4 * i);
  }
  const text = { kind: "text" as const, fill: theme.muted, size: 11 };
  const unit = fitted(data.unit, height, measure, 11);
  return [
    { kind: "raster", x, y, width: 10, height, columns: 1, rows: steps, pixels },
    { ...text, x: x + 14, y: y + 5, text: figure(data.high) },
    { ...text, x: x + 14, y: y + height - 5, text: figure(data.low) },
    { ...text, x: x + 46, y: y + height / 2, text: unit, turned: true, anchor: "middle" },
  ];
}

function cellWords(data: HeatmapData, row: number, column: number): string {
  const value = data.values[row]?.[column] ?? null;
  const where = `${quoted(data.rows[row] ?? "")}, ${quoted(data.columns[column] ?? "")}`;
  return value === null ? `${where}: ${data.missing ?? "masked"}` : `${where}: ${figure(value, 4)}`;
}

function start(data: HeatmapData): number {
  return Math.max(largest(data), 0);
}

function largest(data: HeatmapData): number {
  let [best, at] = [Number.NEGATIVE_INFINITY, -1];
  data.values.forEach((row, r) =>
    row.forEach((value, c) => {
      if (value !== null && value > best) [best, at] = [value, r * data.columns.length + c];
    }),
  );
  return at;
}

function words(data: HeatmapData): string {
  const at = largest(data);
  const size = `Heat map of ${data.rows.length} rows and ${data.columns.length} columns, ${data.unit}`;
  if (at < 0) return `${size}.`;
  const columns = data.columns.length;
  return `${size}. The largest cell: ${cellWords(data, Math.floor(at / columns), at % columns)}.`;
}

function csv(data: HeatmapData): string {
  return csvOf([["", ...data.columns], ...data.values.map((row, r) => [data.rows[r] ?? "", ...row])]);
}
