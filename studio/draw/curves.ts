// Curves over one axis, with their names, and the values below the pointer.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { fitted } from "./heatmap";
import { type Item, listMarks, type Mark, type Measure, type Point, type Scene } from "./scene";
import type { Theme } from "./theme";
import { csvOf, figure } from "./words";

export interface Series {
  name: string;
  x: readonly number[];
  y: readonly (number | null)[];
  /** Drawn thin, behind the others: single values that another curve smooths. */
  faint?: boolean;
}

export interface CurvesData {
  kind: "curves";
  title: string;
  series: readonly Series[];
  x_unit: string;
  y_unit: string;
  /** Horizontal lines with a name, such as the loss before the run. */
  levels?: readonly { name: string; y: number }[];
  /** Axes that are logarithmic; their values are above 0. */
  logarithmic?: readonly ("x" | "y")[];
}

const SIZE = 12;
const HEIGHT = 300;
const FEW = 60; // points of a curve that are drawn as dots too
const DASHES: readonly (readonly number[])[] = [[], [6, 4], [2, 3], [10, 3, 2, 3]];

export const curves: Module<CurvesData> = { scene, csv, title: (data) => data.title };

/** Draw curves into an element. */
export function draw(
  target: HTMLElement,
  data: CurvesData,
  theme: Theme,
  options?: Options,
): Drawing<CurvesData> {
  return mount(curves, target, data, theme, options);
}

/** Return about `most` round numbers from low to high. */
export function ticks(low: number, high: number, most: number): number[] {
  const span = high - low || 1;
  const rough = span / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9) * step;
  const count = Math.floor((high - first) / step + 1e-9) + 1;
  return Array.from({ length: Math.max(count, 0) }, (_, i) => Number((first + i * step).toPrecision(12)));
}

function range(values: readonly number[]): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low > high ? [0, 1] : low === high ? [low - 0.5, high + 0.5] : [low, high];
}

/** Return the powers of ten between two values; without two of them, round numbers. */
function decades(low: number, high: number, most: number): number[] {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const powers = Array.from({ length: Math.max(last - first + 1, 0) }, (_, i) => 10 ** (first + i));
  return powers.length > 1 ? powers : ticks(low, high, most);
}

/** Where a value stands between the ends of an axis, 0 to 1, and which values have a number. */
interface Axis {
  share(value: number): number;
  ticks: number[];
}

function axis(low: number, high: number, most: number, logarithmic = false): Axis {
  if (!logarithmic || low <= 0)
    return { share: (value) => (value - low) / (high - low), ticks: ticks(low, high, most) };
  const span = Math.log(high / low);
  return { share: (value) => Math.log(value / low) / span, ticks: decades(low, high, most) };
}

function scene(data: CurvesData, theme: Theme, width: number, measure: Measure): Scene {
  const isLog = (name: "x" | "y"): boolean => data.logarithmic?.includes(name) ?? false;
  const xs = range(data.series.flatMap((one) => one.x));
  const heights = data.series.flatMap((one) => one.y.filter((y) => y !== null));
  const [low, high] = range([...heights, ...(data.levels ?? []).map((level) => level.y)]);
  const pad = 0.05 * (high - low);
  const ends: [number, number] = isLog("y") ? [low / 1.3, high * 1.3] : [low, high + pad];
  if (!isLog("y")) ends[0] = low >= 0 && low < pad ? 0 : low - pad;
  const vertical = axis(...ends, 6, isLog("y"));
  const horizontal = axis(...xs, Math.max(2, Math.floor(width / 90)), isLog("x"));
  const legend = data.series.length > 1 || data.levels?.length ? 22 : 6;
  const left = Math.max(...labelsOf(vertical.ticks).map((text) => measure(text, SIZE))) + 30;
  const box = { left, right: width - 24, top: legend, bottom: HEIGHT - 40 };
  const x = (value: number): number => left + horizontal.share(value) * (box.right - left);
  const y = (value: number): number => box.bottom - vertical.share(value) * (box.bottom - box.top);
  const items: Item[] = [...axes(data, theme, box, horizontal.ticks, vertical.ticks, x, y)];
  data.levels?.forEach((level) => {
    items.push({
      kind: "line",
      points: [
        [left, y(level.y)],
        [box.right, y(level.y)],
      ],
      stroke: theme.muted,
      width: 1,
      dash: [4, 4],
    });
    items.push({
      kind: "text",
      x: box.right,
      y: y(level.y) - 8,
      text: level.name,
      fill: theme.muted,
      size: 11,
      anchor: "end",
    });
  });
  for (const { one, stroke, dash } of styled(data, theme)) {
    for (const points of pieces(one, x, y)) {
      items.push({ kind: "line", points, stroke, width: one.faint ? 1 : 2, dash });
      if (points.length >= FEW) continue;
      items.push(
        ...points.map(([px, py]): Item => ({ kind: "dot", x: px, y: py, radius: 2.5, fill: stroke })),
      );
    }
  }
  if (data.series.length > 1) items.push(...names(data, theme, left, width, measure));
  return { width, height: HEIGHT, items, words: words(data), marks: listMarks(columns(data, x, box)) };
}

interface Box {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** Return numbers with three significant digits, or as many as tell them apart. */
export function labelsOf(values: readonly number[]): string[] {
  for (let digits = 3; digits < 9; digits++) {
    const labels = values.map((value) => figure(value, digits));
    if (new Set(labels).size === values.length) return labels;
  }
  return values.map((value) => figure(value, 9));
}

function axes(
  data: CurvesData,
  theme: Theme,
  box: Box,
  xs: number[],
  ys: number[],
  x: (value: number) => number,
  y: (value: number) => number,
): Item[] {
  const text = { kind: "text" as const, fill: theme.muted, size: SIZE };
  const labels = labelsOf(ys);
  return [
    ...ys.flatMap((value, i): Item[] => [
      {
        kind: "line",
        points: [
          [box.left, y(value)],
          [box.right, y(value)],
        ],
        stroke: theme.line,
        width: 0.5,
      },
      { ...text, x: box.left - 6, y: y(value), text: labels[i] ?? "", anchor: "end" },
    ]),
    ...xs.map((value): Item => ({
      ...text,
      x: x(value),
      y: box.bottom + 14,
      text: figure(value, 6),
      anchor: "middle",
    })),
    { ...text, x: (box.left + box.right) / 2, y: HEIGHT - 9, text: data.x_unit, anchor: "middle" },
    { ...text, x: 9, y: (box.top + box.bottom) / 2, text: data.y_unit, turned: true, anchor: "middle" },
    {
      kind: "line",
      points: [
        [box.left, box.bottom],
        [box.right, box.bottom],
      ],
      stroke: theme.line,
      width: 1,
    },
  ];
}

/** Return a curve as lines of points, broken where values are missing. */
function pieces(one: Series, x: (value: number) => number, y: (value: number) => number): Point[][] {
  const lines: Point[][] = [[]];
  one.x.forEach((value, i) => {
    const height = one.y[i];
    if (height === null || height === undefined) lines.push([]);
    else lines.at(-1)?.push([x(value), y(height)]);
  });
  return lines.filter((line) => line.length);
}

/** Return the curves with their colours and dashes, the faint ones first. */
function styled(data: CurvesData, theme: Theme): { one: Series; stroke: string; dash: readonly number[] }[] {
  let strong = 0;
  const each = data.series.map((one) => {
    if (one.faint) return { one, stroke: theme.accents[5] ?? theme.muted, dash: [] };
    const stroke = theme.accents[strong % 5] ?? theme.text;
    return { one, stroke, dash: DASHES[strong++ % DASHES.length] ?? [] };
  });
  return [...each.filter(({ one }) => one.faint), ...each.filter(({ one }) => !one.faint)];
}

function names(data: CurvesData, theme: Theme, left: number, width: number, measure: Measure): Item[] {
  let at = left;
  const each = (width - left) / data.series.length - 34;
  return styled(data, theme).flatMap(({ one, stroke, dash }): Item[] => {
    const text = fitted(one.name, Math.max(each, 30), measure);
    const start = at;
    at += measure(text, SIZE) + 40;
    const points: Point[] = [
      [start, 10],
      [start + 20, 10],
    ];
    return [
      { kind: "line", points, stroke, width: one.faint ? 1 : 2, dash },
      { kind: "text", x: start + 25, y: 10, text, fill: theme.text, size: SIZE },
    ];
  });
}

/** Return one mark for each place of the first axis: a column with the values of every curve there. */
function columns(data: CurvesData, x: (value: number) => number, box: Box): Mark[] {
  const places = [...new Set(data.series.flatMap((one) => one.x))].sort((a, b) => a - b);
  const every = Math.max(1, Math.ceil(places.length / 400)); // no more marks than pixels can tell apart
  const shown = places.filter((_, i) => i % every === 0 || i === places.length - 1);
  return shown.map((value, i) => {
    const from = i ? (x(shown[i - 1] as number) + x(value)) / 2 : box.left;
    const to = i < shown.length - 1 ? (x(value) + x(shown[i + 1] as number)) / 2 : box.right;
    const values = data.series.flatMap((one) => {
      const at = one.x.indexOf(value);
      return at < 0 || one.y[at] === null
        ? []
        : [data.series.length > 1 ? `${one.name} ${figure(one.y[at], 4)}` : figure(one.y[at], 4)];
    });
    return {
      x: from,
      y: box.top,
      width: Math.max(to - from, 1),
      height: box.bottom - box.top,
      label: `${data.x_unit} ${figure(value, 6)}: ${values.join("; ")}`,
    };
  });
}

function words(data: CurvesData): string {
  const each = data.series.map((one) => {
    const last = one.y.findLastIndex((y) => y !== null);
    const first = one.y.findIndex((y) => y !== null);
    if (last < 0) return `${one.name}: no values`;
    const at = (place: number): string => `${figure(one.y[place], 4)} at ${figure(one.x[place], 6)}`;
    return `${one.name}: ${at(first)}, ${at(last)}`;
  });
  return `Curves of ${data.y_unit} over ${data.x_unit}. ${each.join("; ")}.`;
}

function csv(data: CurvesData): string {
  return csvOf([
    ["curve", data.x_unit || "x", data.y_unit || "y"],
    ...data.series.flatMap((one) => one.x.map((x, i) => [one.name, x, one.y[i] ?? null])),
  ]);
}
