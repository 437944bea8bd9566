// Bars from the left, one below the other, each with its label and its number.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { fitted } from "./heatmap";
import { type Item, listMarks, type Mark, type Measure, type Scene } from "./scene";
import type { Theme } from "./theme";
import { csvOf, figure, percent, quoted, tokenLabel } from "./words";

export interface BarsData {
  kind: "bars";
  title: string;
  labels: readonly string[];
  values: readonly (number | null)[];
  unit: string;
  /** Bars that stand out, such as the token that was taken. */
  marked?: readonly number[];
  /** A second value of each bar, drawn as a thin line: the bar without the settings. */
  before?: readonly (number | null)[];
  /** The numbers as they stand beside the bars, and the bars in words, if the page has its own. */
  numbers?: readonly string[];
  said?: readonly string[];
  /** The value of a full bar; the largest one if it is left out. */
  most?: number;
}

const SIZE = 13;
const ROW = 24; // pixels from one bar to the next
const MOST_LABEL = 180;

export const bars: Module<BarsData> = { scene, csv, title: (data) => data.title };

/** Draw bars into an element. */
export function draw(
  target: HTMLElement,
  data: BarsData,
  theme: Theme,
  options?: Options,
): Drawing<BarsData> {
  return mount(bars, target, data, theme, options);
}

/** Return a bar's number as it stands beside the bar. */
function shown(value: number | null, unit: string): string {
  if (value === null) return "none";
  return /probability|share|weight/.test(unit) && value >= 0 && value <= 1 ? percent(value) : figure(value);
}

function scene(data: BarsData, theme: Theme, width: number, measure: Measure): Scene {
  const labels = data.labels.map((text) => fitted(tokenLabel(text, 40), MOST_LABEL, measure, SIZE));
  const left = Math.min(Math.max(20, ...labels.map((text) => measure(text, SIZE, true))), MOST_LABEL) + 12;
  const numbers = data.numbers ?? data.values.map((value) => shown(value, data.unit));
  const right = Math.max(...numbers.map((text) => measure(text, SIZE))) + 12;
  const finite = [...data.values, ...(data.before ?? [])].filter((value) => value !== null);
  const most = data.most ?? Math.max(...finite.map(Math.abs), 1e-12);
  const room = Math.max(width - left - right, 40);
  const items: Item[] = [];
  const marks: Mark[] = [];
  data.values.forEach((value, i) => {
    const y = i * ROW + 2;
    const marked = data.marked?.includes(i) ?? false;
    const fill = (marked ? theme.accents[1] : theme.accents[0]) ?? theme.text;
    const length =
      value === null ? 0 : Math.max((Math.min(Math.abs(value), most) / most) * room, value ? 1 : 0);
    items.push(
      {
        kind: "text",
        x: left - 8,
        y: y + ROW / 2,
        text: labels[i] ?? "",
        fill: theme.text,
        size: SIZE,
        anchor: "end",
        bold: marked,
      },
      { kind: "rect", x: left, y: y + 3, width: room, height: ROW - 6, fill: theme.surface },
      { kind: "rect", x: left, y: y + 3, width: length, height: ROW - 6, fill },
      {
        kind: "text",
        x: left + room + 8,
        y: y + ROW / 2,
        text: numbers[i] ?? "",
        fill: theme.text,
        size: SIZE,
      },
    );
    const before = data.before?.[i];
    if (before !== undefined && before !== null) {
      const x = left + (Math.min(before, most) / most) * room;
      items.push({
        kind: "line",
        points: [
          [x, y + 1],
          [x, y + ROW - 1],
        ],
        stroke: theme.text,
        width: 2,
      });
    }
    const label = data.said?.[i] ?? barWords(data, i);
    marks.push({ x: 0, y, width, height: ROW, label, current: marked });
  });
  return { width, height: data.values.length * ROW + 6, items, words: words(data), marks: listMarks(marks) };
}

function barWords(data: BarsData, i: number): string {
  const before = data.before?.[i];
  const raw = before === undefined || before === null ? "" : `; without settings ${shown(before, data.unit)}`;
  const taken = data.marked?.includes(i) ? ", marked" : "";
  const value = shown(data.values[i] ?? null, data.unit);
  return `${i + 1}. ${quoted(data.labels[i] ?? "")}: ${value}${raw}${taken}`;
}

function words(data: BarsData): string {
  const first = data.values
    .slice(0, 3)
    .map((_, i) => barWords(data, i))
    .join("; ");
  return `Bars of ${data.values.length} values, ${data.unit}. ${first}.`;
}

function csv(data: BarsData): string {
  const head = ["label", data.unit || "value", ...(data.before ? ["before"] : [])];
  return csvOf([
    head,
    ...data.labels.map((label, i) => [
      label,
      data.values[i] ?? null,
      ...(data.before ? [data.before[i] ?? null] : []),
    ]),
  ]);
}
