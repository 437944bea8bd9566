// Ranges of many rows in panels: the whole range as a thin line, the inner part as a thick one, the mean as a
// dot.
import { ticks } from "./curves";
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { fitted } from "./heatmap";
import { type Item, listMarks, type Mark, type Measure, type Scene } from "./scene";
import type { Theme } from "./theme";
import { csvOf, figure, quoted, tokenLabel } from "./words";

export interface Panel {
  title: string;
  /** Of every row: smallest, low, median, high, largest. */
  quantiles: readonly (readonly number[])[];
  means: readonly number[];
}

export interface RangesData {
  kind: "ranges";
  title: string;
  labels: readonly string[];
  /** What the five quantiles are. */
  quantiles: readonly string[];
  panels: readonly Panel[];
  unit: string;
}

const SIZE = 12;
const MOST_LABEL = 110;
const LEAST_PANEL = 210; // pixels; narrower pages have the panels one below the other
const [HEAD, FOOT, GAP] = [24, 44, 44];
const FAR = 20; // extremes so many times the usual range get logarithmic ends

export const ranges: Module<RangesData> = { scene, csv, title: (data) => data.title };

/** Draw the panels into an element. */
export function draw(
  target: HTMLElement,
  data: RangesData,
  theme: Theme,
  options?: Options,
): Drawing<RangesData> {
  return mount(ranges, target, data, theme, options);
}

/** An axis: where a value stands, between 0 and 1; which values have a line; from where it is logarithmic. */
interface Axis {
  share(value: number): number;
  ticks: readonly number[];
  usual: number | null;
}

interface Place {
  left: number;
  top: number;
  width: number;
  row: number; // pixels from row to row
  labels: boolean;
}

/** Return the axis of a panel: linear, with logarithmic ends if a few values are very far out. */
export function axisOf(panel: Panel): Axis {
  const reach = Math.max(...panel.quantiles.map((row) => Math.max(-(row[0] ?? 0), row[4] ?? 0)), 1e-9);
  const inner = panel.quantiles.map((row) => Math.max(-(row[1] ?? 0), row[3] ?? 0)).sort((a, b) => a - b);
  const usual = inner[Math.floor(inner.length / 2)] ?? reach;
  if (!(usual > 0) || reach <= FAR * usual) {
    const end = reach * 1.04;
    return { share: (value) => (value + end) / (2 * end), ticks: ticks(-end, end, 4), usual: null };
  }
  const decades = Math.log10(reach / usual) + 1;
  const bent = (value: number): number => {
    const size = Math.abs(value) / usual;
    return (Math.sign(value) * (size <= 1 ? size : 1 + Math.log10(size))) / (decades * 1.04);
  };
  return { share: (value) => (1 + bent(value)) / 2, ticks: [-reach, -usual, 0, usual, reach], usual };
}

function scene(data: RangesData, theme: Theme, width: number, measure: Measure): Scene {
  const labels = data.labels.map((text) => fitted(tokenLabel(text), MOST_LABEL, measure));
  const left = Math.max(20, ...labels.map((text) => measure(text, SIZE))) + 12;
  const row = data.labels.length <= 40 ? 20 : 8;
  const count = data.panels.length;
  const beside = width - left >= count * LEAST_PANEL;
  const each = beside ? (width - left - 24 - (count - 1) * GAP) / count : width - left - 24;
  const tall = HEAD + row * data.labels.length + FOOT;
  const items: Item[] = [];
  const marks: Mark[] = [];
  data.panels.forEach((panel, i) => {
    const place: Place = {
      left: left + 8 + (beside ? i * (each + GAP) : 0),
      top: beside ? 0 : i * tall,
      width: each,
      row,
      labels: !beside || i === 0,
    };
    items.push(...panelItems(data, panel, labels, place, theme, measure));
    data.labels.forEach((_, at) => {
      const y = place.top + HEAD + at * row;
      marks.push({ x: place.left, y, width: each, height: row, label: rowWords(data, panel, at) });
    });
  });
  const height = (beside ? tall : tall * count) + 18;
  const [least, low, , high, most] = data.quantiles;
  const key = `thin: ${least} to ${most}; thick: ${low} to ${high}; dot: mean`;
  items.push({
    kind: "text",
    x: 4,
    y: height - 12,
    text: fitted(key, width - 8, measure, 11),
    fill: theme.muted,
    size: 11,
  });
  return { width, height, items, words: words(data), marks: listMarks(marks) };
}

function panelItems(
  data: RangesData,
  panel: Panel,
  labels: readonly string[],
  place: Place,
  theme: Theme,
  measure: Measure,
): Item[] {
  const axis = axisOf(panel);
  const x = (value: number): number => place.left + axis.share(value) * place.width;
  const y = (at: number): number => place.top + HEAD + (at + 0.5) * place.row;
  const bottom = place.top + HEAD + place.row * labels.length;
  const muted = { kind: "text" as const, fill: theme.muted, size: 11 };
  const items: Item[] = [
    {
      kind: "text",
      x: place.left + place.width / 2,
      y: place.top + 10,
      text: fitted(panel.title, place.width, measure),
      fill: theme.text,
      size: SIZE,
      bold: true,
      anchor: "middle",
    },
    ...gridLines(axis, x, place, bottom, theme, measure),
  ];
  const unit =
    axis.usual === null ? data.unit : `${data.unit} (logarithmic beyond ±${figure(axis.usual, 2)})`;
  const middle = place.left + place.width / 2;
  items.push({
    ...muted,
    x: middle,
    y: bottom + 30,
    text: fitted(unit, place.width, measure, 11),
    anchor: "middle",
  });
  const every = Math.ceil((SIZE + 2) / place.row);
  labels.forEach((text, at) => {
    const [least, low, , high, most] = (panel.quantiles[at] ?? []).map(x);
    const level = y(at);
    const line = (from = 0, to = 0, width = 1): Item => ({
      kind: "line",
      points: [
        [from, level],
        [Math.max(to, from + 1), level],
      ],
      stroke: theme.accents[0] ?? theme.text,
      width,
    });
    items.push(line(least, most), line(low, high, place.row > 10 ? 7 : 4));
    const dot = { x: x(panel.means[at] ?? 0), y: level, fill: theme.accents[1] ?? theme.text };
    items.push({ kind: "dot", ...dot, radius: place.row > 10 ? 4 : 2.5 });
    if (place.labels && at % every === 0)
      items.push({
        kind: "text",
        x: place.left - 8,
        y: level,
        text,
        fill: theme.text,
        size: SIZE,
        anchor: "end",
      });
  });
  return items;
}

function gridLines(
  axis: Axis,
  x: (value: number) => number,
  place: Place,
  bottom: number,
  theme: Theme,
  measure: Measure,
): Item[] {
  let free = Number.NEGATIVE_INFINITY; // where the last number ends
  return axis.ticks.flatMap((value): Item[] => {
    const at = x(value);
    const text = figure(value, 2);
    const half = measure(text, 11) / 2;
    const line: Item = {
      kind: "line",
      points: [
        [at, place.top + HEAD - 2],
        [at, bottom],
      ],
      stroke: value === 0 ? theme.muted : theme.line,
      width: value === 0 ? 1 : 0.5,
    };
    if (at - half < free + 6) return [line];
    free = at + half;
    return [
      line,
      { kind: "text", x: at, y: bottom + 12, text, fill: theme.muted, size: 11, anchor: "middle" },
    ];
  });
}

function rowWords(data: RangesData, panel: Panel, at: number): string {
  const numbers = panel.quantiles[at]?.map((value, i) => `${data.quantiles[i]} ${figure(value)}`) ?? [];
  const row = `${panel.title}, ${quoted(data.labels[at] ?? "")}`;
  return `${row}: mean ${figure(panel.means[at])}; ${numbers.join(", ")}`;
}

function words(data: RangesData): string {
  const each = data.panels.map((panel) => rowWords(data, panel, 0));
  const size = `${data.panels.length} panels with a row for each of ${data.labels.length} tokens`;
  return `${size}. ${each.join(". ")}.`;
}

function csv(data: RangesData): string {
  const rows = data.panels.flatMap((panel) =>
    data.labels.map((label, at) => [
      panel.title,
      at,
      label,
      panel.means[at] ?? null,
      ...(panel.quantiles[at] ?? []),
    ]),
  );
  return csvOf([["panel", "position", "text", "mean", ...data.quantiles], ...rows]);
}
