// A model as a diagram: its steps in stacks, the stream of residuals beside one block, and every block as a
// square.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { fitted } from "./heatmap";
import { type Item, listMarks, type Mark, type Measure, type Point, type Scene } from "./scene";
import { css, mixed, type Theme } from "./theme";
import { csvOf, wrapped } from "./words";

export interface Step {
  title: string;
  weights: string;
  output: string;
  parameters: number;
}

export interface Stack {
  name: string;
  in_block: boolean;
  /** The addition below the stack in words; "" where nothing is added yet. */
  adds: string;
  steps: readonly Step[];
}

export interface DiagramData {
  kind: "diagram";
  title: string;
  stream: string;
  /** One line about the blocks: how many, how large. */
  block: string;
  stacks: readonly Stack[];
  /** What the attention of each block sees, in words. */
  blocks: readonly string[];
}

const [SIZE, SMALL] = [13, 11];
const [WIDEST, NARROW] = [860, 560]; // below NARROW a step has two lines
const [STREAM, INSET] = [18, 44]; // x of the stream, and of the stacks of a block
const [PAD, GAP] = [6, 26];
const LATER = "added below, with that of the next";

export const diagram: Module<DiagramData> = { scene, csv, title: (data) => data.title };

/** Draw the diagram into an element. */
export function draw(
  target: HTMLElement,
  data: DiagramData,
  theme: Theme,
  options?: Options,
): Drawing<DiagramData> {
  return mount(diagram, target, data, theme, options);
}

/** What is drawn so far, and the widths that all of it shares. */
interface Sheet {
  items: Item[];
  marks: Mark[];
  theme: Theme;
  measure: Measure;
  right: number;
  narrow: boolean;
  columns: readonly [title: number, weights: number, output: number];
}

function scene(data: DiagramData, theme: Theme, width: number, measure: Measure): Scene {
  const right = Math.min(width, WIDEST) - 4;
  const narrow = width < NARROW;
  const steps = data.stacks.flatMap((stack) => stack.steps);
  const first = INSET + 12;
  const second = first + Math.max(...steps.map((step) => measure(step.title, SIZE, true))) + 18;
  const third = second + Math.max(...steps.map((step) => measure(step.weights, SIZE))) + 18;
  const sheet: Sheet = {
    items: [],
    marks: [],
    theme,
    measure,
    right,
    narrow,
    columns: [first, second, Math.min(third, right - 190)],
  };
  let top = heading(sheet);
  let [start, frame] = [top, 0];
  data.stacks.forEach((stack, i) => {
    const inside = stack.in_block;
    const before = data.stacks[i - 1]?.in_block ?? false;
    if (inside && !before) {
      words(sheet, INSET, top + GAP / 2, data.stream);
      start = top;
      frame = top + GAP;
      top = blockSquares(sheet, data, frame) + 6;
    }
    if (!inside && before) {
      outline(sheet, frame, top);
      top += GAP;
      arrow(sheet, [STREAM, start], [STREAM, top]);
    }
    const end = stackItems(sheet, stack, i, top, inside ? INSET : 6);
    if (inside) around(sheet, stack, top, end);
    top = inside ? end + GAP : end;
  });
  return { width, height: top + 6, items: sheet.items, words: inWords(data), marks: listMarks(sheet.marks) };
}

function heading(sheet: Sheet): number {
  const [title, weights, output] = sheet.columns;
  if (sheet.narrow) return 4;
  words(sheet, title, 9, "step");
  words(sheet, weights, 9, "weights");
  words(sheet, output, 9, "output shape");
  words(sheet, sheet.right - 8, 9, "parameters", "end");
  return 22;
}

function words(sheet: Sheet, x: number, y: number, text: string, anchor: "start" | "end" = "start"): void {
  const room = anchor === "end" ? x : sheet.right - x;
  const shown = fitted(text, room, sheet.measure, SMALL);
  sheet.items.push({ kind: "text", x, y, text: shown, fill: sheet.theme.muted, size: SMALL, anchor });
}

/**
 * Draw a square for each block, coloured by what its attention sees, with a legend; returns where it ends.
 */
function blockSquares(sheet: Sheet, data: DiagramData, top: number): number {
  const { items, marks, theme, measure, right } = sheet;
  const kinds = [...new Set(data.blocks)];
  let y = top + 16;
  for (const text of wrapped(data.block, right - INSET - 8, (line) => measure(line, SIZE, true))) {
    items.push({ kind: "text", x: INSET, y, text, fill: theme.text, size: SIZE, bold: true });
    y += 18;
  }
  const colour = (name: string): string =>
    theme.accents[kinds.indexOf(name) % theme.accents.length] ?? theme.text;
  const cell = Math.max(Math.min((right - INSET - 8) / Math.max(data.blocks.length, 1), 18), 3);
  y -= 4;
  data.blocks.forEach((name, i) => {
    const box = { x: INSET + i * cell, y, width: cell - (cell > 6 ? 2 : 0.5), height: 14 };
    items.push({ kind: "rect", ...box, radius: cell > 6 ? 2 : 0, fill: colour(name) });
    marks.push({ ...box, label: `Block ${i}: a token sees ${name}` });
  });
  y += 24;
  for (const name of kinds) {
    const count = data.blocks.filter((one) => one === name).length;
    items.push({ kind: "rect", x: INSET, y: y - 4, width: 9, height: 9, fill: colour(name) });
    const blocks = `${count} ${count === 1 ? "block sees" : "blocks see"} ${name}`;
    for (const text of wrapped(blocks, right - INSET - 20, (line) => measure(line, SMALL))) {
      words(sheet, INSET + 15, y, text);
      y += 15;
    }
  }
  return y;
}

/** Draw a stack of steps; returns where it ends. */
function stackItems(sheet: Sheet, stack: Stack, number: number, top: number, left: number): number {
  const { items, marks, theme, right, narrow } = sheet;
  const accent = theme.accents[number % 4] ?? theme.text;
  const row = narrow ? 38 : 21;
  const height = row * stack.steps.length + 2 * PAD;
  const fill = css(mixed(accent, theme.background, 0.16));
  items.push({ kind: "rect", x: left, y: top, width: right - left, height, radius: 6, fill, stroke: accent });
  stack.steps.forEach((step, i) => {
    const y = top + PAD + i * row;
    if (i) line(sheet, [left + 6, y], [right - 6, y], theme.line, 0.5);
    stepItems(sheet, step, y, row, left);
    const label = `${stack.name}: ${stepWords(step)}`;
    marks.push({ x: left, y, width: right - left, height: row, label });
  });
  return top + height;
}

function stepItems(sheet: Sheet, step: Step, top: number, row: number, left: number): void {
  const { items, theme, measure, right, narrow, columns } = sheet;
  const numbers = step.parameters ? step.parameters.toLocaleString("en") : "–";
  const text = (x: number, y: number, words: string, room: number, more = {}): void => {
    const shown = fitted(words, room, measure, SIZE);
    items.push({ kind: "text", x, y, text: shown, fill: theme.text, size: SIZE, ...more });
  };
  const bold = step.parameters > 0;
  const end = right - 8 - measure(numbers, SIZE);
  if (narrow) {
    const [x, first, second] = [left + 8, top + row * 0.28, top + row * 0.74];
    text(x, first, step.title, end - x - 8, { bold });
    text(right - 8, first, numbers, right, { anchor: "end" });
    const shape = measure(step.output, SIZE);
    text(x, second, step.weights, right - 16 - x - shape, { fill: theme.muted });
    text(right - 8, second, step.output, right, { anchor: "end" });
    return;
  }
  const [title, weights, output] = columns;
  const y = top + row / 2;
  text(title, y, step.title, weights - title - 8, { bold });
  text(weights, y, step.weights, output - weights - 8);
  text(output, y, step.output, end - output - 8);
  text(right - 8, y, numbers, right, { anchor: "end" });
}

/** Draw the stream past a stack: an arrow into it at the top, the addition below it. */
function around(sheet: Sheet, stack: Stack, top: number, end: number): void {
  const { items, theme } = sheet;
  const [plus, out] = [end + GAP / 2, INSET + 12];
  arrow(sheet, [STREAM, top + 14], [INSET, top + 14]);
  line(sheet, [out, end], [out, plus]);
  words(sheet, out + 10, plus, stack.adds || LATER);
  if (!stack.adds) return;
  arrow(sheet, [out, plus], [STREAM + 7, plus]);
  items.push({ kind: "dot", x: STREAM, y: plus, radius: 7.5, fill: theme.text });
  items.push({ kind: "dot", x: STREAM, y: plus, radius: 6.5, fill: theme.background });
  line(sheet, [STREAM - 4, plus], [STREAM + 4, plus]);
  line(sheet, [STREAM, plus - 4], [STREAM, plus + 4]);
}

function outline(sheet: Sheet, top: number, end: number): void {
  const [left, right] = [4, sheet.right + 3];
  const points: Point[] = [
    [left, top],
    [right, top],
    [right, end],
    [left, end],
  ];
  const { muted } = sheet.theme;
  sheet.items.push({ kind: "line", points, closed: true, stroke: muted, width: 1, dash: [4, 3] });
}

function line(sheet: Sheet, from: Point, to: Point, stroke = sheet.theme.text, width = 1.2): void {
  sheet.items.push({ kind: "line", points: [from, to], stroke, width });
}

/** Draw an arrow along a row or a column; lines drawn later lie over it. */
function arrow(sheet: Sheet, from: Point, to: Point): void {
  const [dx, dy] = [Math.sign(to[0] - from[0]), Math.sign(to[1] - from[1])];
  const wing = (side: number): Point => [to[0] - 6 * dx + side * 4 * dy, to[1] - 6 * dy + side * 4 * dx];
  const points = [wing(1), to, wing(-1)];
  const { items, theme } = sheet;
  items.unshift({ kind: "line", points: [from, to], stroke: theme.text, width: 1.2 });
  items.push({ kind: "line", points, stroke: theme.text, width: 1.2 });
}

function stepWords(step: Step): string {
  const learned = step.parameters ? `, ${step.parameters.toLocaleString("en")} parameters` : "";
  return `${step.title}, ${step.weights}, output ${step.output}${learned}`;
}

function inWords(data: DiagramData): string {
  const stacks = data.stacks.map((stack) => {
    const adds = stack.adds ? `; then ${stack.adds}` : "";
    return `${stack.name}: ${stack.steps.map((step) => step.title).join(", ")}${adds}`;
  });
  return `A diagram from top to bottom. ${data.block}. ${stacks.join(". ")}.`;
}

function csv(data: DiagramData): string {
  const rows = data.stacks.flatMap((stack) =>
    stack.steps.map((step) => [stack.name, step.title, step.weights, step.output, step.parameters]),
  );
  const blocks = data.blocks.map((name, i) => [`block ${i}`, "attention", name, "", null]);
  return csvOf([["part", "step", "weights", "output", "parameters"], ...rows, ...blocks]);
}
