// A grid of names, one cell for each pair of choices: the measured role of every head of every layer.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { gridMarks, type Grid, type Item, type Measure, type Scene } from "./scene";
import { readableOn, rgb, type Theme } from "./theme";
import { csvOf } from "./words";

export interface RolesData {
  kind: "roles";
  title: string;
  /** What columns and rows are: layer, head. */
  axes: readonly [string, string];
  columns: readonly string[];
  rows: readonly string[];
  /** The name of each column and row; "" for a cell without one. */
  names: readonly (readonly string[])[];
  /** The chosen column and row. */
  marked: readonly [number, number];
}

const SIZE = 11;
const LARGEST = 22; // pixels of a cell
const LETTERS_FROM = 14; // pixels of a cell that has room for a letter

export const roles: Module<RolesData> = { scene, csv, title: (data) => data.title };

/** Draw the grid into an element; `onSelect` gets row * columns + column. */
export function draw(
  target: HTMLElement,
  data: RolesData,
  theme: Theme,
  options?: Options,
): Drawing<RolesData> {
  return mount(roles, target, data, theme, options);
}

/** Return the names that occur, and how often, in the order of the alphabet. */
export function namesOf(data: Pick<RolesData, "names">): Map<string, number> {
  const found = new Map<string, number>();
  for (const name of data.names.flat()) if (name) found.set(name, (found.get(name) ?? 0) + 1);
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function scene(data: RolesData, theme: Theme, width: number, measure: Measure): Scene {
  const names = namesOf(data);
  const colours = new Map(
    [...names.keys()].map((name, i) => [name, theme.accents[i % theme.accents.length] ?? theme.text]),
  );
  const left = 40;
  const top = 18;
  const cell = Math.max(Math.min((width - left) / Math.max(data.columns.length, 1), LARGEST), 6);
  const [columns, rows] = [data.columns.length, data.rows.length];
  const grid: Grid = { x: left, y: top, cellWidth: cell, cellHeight: cell, rows, columns };
  const text = { kind: "text" as const, fill: theme.muted, size: SIZE };
  const every = Math.ceil((SIZE + 5) / cell);
  const items: Item[] = [
    { ...text, x: 8, y: top + (rows * cell) / 2, text: data.axes[1], turned: true, anchor: "middle" },
  ];
  data.columns.forEach((label, column) => {
    if (column % every === 0)
      items.push({ ...text, x: left + (column + 0.5) * cell, y: 9, text: label, anchor: "middle" });
    data.rows.forEach((_, row) => items.push(...box(data, grid, row, column, colours, theme)));
  });
  data.rows.forEach((label, row) => {
    if (row % every === 0)
      items.push({ ...text, x: left - 5, y: top + (row + 0.5) * cell, text: label, anchor: "end" });
  });
  const [column, row] = data.marked;
  const [x, y] = [left + column * cell, top + row * cell];
  const ends = [
    [x, y],
    [x + cell, y],
    [x + cell, y + cell],
    [x, y + cell],
  ] as const;
  items.push({ kind: "line", points: ends, closed: true, stroke: theme.text, width: 2 });
  const end = top + rows * cell + 14;
  items.push({ ...text, x: left, y: end, text: data.axes[0] });
  const bottom = legend(items, names, colours, theme, left, end + 20, width, measure);
  return {
    width: Math.max(width, left + columns * cell + 2),
    height: bottom + 14,
    items,
    words: words(data, names),
    marks: gridMarks(grid, (r, c) => cellWords(data, c, r), row * columns + column),
  };
}

function box(
  data: RolesData,
  grid: Grid,
  row: number,
  column: number,
  colours: Map<string, string>,
  theme: Theme,
): Item[] {
  const name = data.names[column]?.[row] ?? "";
  const fill = colours.get(name) ?? theme.surface;
  const cell = grid.cellWidth;
  const [x, y] = [grid.x + column * cell, grid.y + row * cell];
  const items: Item[] = [{ kind: "rect", x: x + 0.5, y: y + 0.5, width: cell - 1, height: cell - 1, fill }];
  if (name && cell >= LETTERS_FROM) {
    const letter = (name[0] ?? "").toUpperCase();
    items.push({
      kind: "text",
      x: x + cell / 2,
      y: y + cell / 2,
      text: letter,
      fill: readableOn(rgb(fill)),
      size: SIZE,
      anchor: "middle",
    });
  }
  return items;
}

/** Add the names with their colours and counts, in lines that fit the width; returns where they end. */
function legend(
  items: Item[],
  names: Map<string, number>,
  colours: Map<string, string>,
  theme: Theme,
  left: number,
  top: number,
  width: number,
  measure: Measure,
): number {
  let [x, y] = [left, top];
  for (const [name, count] of names) {
    const shown = `${(name[0] ?? "").toUpperCase()}  ${name}: ${count}`;
    const wide = measure(shown, SIZE) + 36;
    if (x > left && x + wide > width) [x, y] = [left, y + 18];
    items.push(
      { kind: "rect", x, y: y - 6, width: 12, height: 12, fill: colours.get(name) ?? theme.surface },
      { kind: "text", x: x + 18, y, text: shown, fill: theme.text, size: SIZE },
    );
    x += wide;
  }
  return y;
}

function cellWords(data: RolesData, column: number, row: number): string {
  const name = data.names[column]?.[row] || "no measured role";
  return `${data.axes[0]} ${data.columns[column]}, ${data.axes[1]} ${data.rows[row]}: ${name}`;
}

function words(data: RolesData, names: Map<string, number>): string {
  const counts = [...names].map(([name, count]) => `${count} ${name}`).join(", ");
  const size = `A grid of ${data.columns.length} times ${data.rows.length}`;
  return `${size}, each with its measured role: ${counts || "none has one"}. Enter chooses.`;
}

function csv(data: RolesData): string {
  const rows = data.names.flatMap((column, c) =>
    column.map((name, r) => [data.columns[c] ?? "", data.rows[r] ?? "", name]),
  );
  return csvOf([[...data.axes, "role"], ...rows]);
}
