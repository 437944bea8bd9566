// A scatter plot: labelled points in groups, each group with its colour.
import { ticks } from "./curves";
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { type Item, listMarks, type Measure, type Scene } from "./scene";
import type { Theme } from "./theme";
import { csvOf, figure, quoted, tokenLabel, valueOf } from "./words";

export interface Dot {
  x: number;
  y: number;
  label: string;
  group: string;
}

export interface PointsData {
  kind: "points";
  title: string;
  points: readonly Dot[];
  x_unit: string;
  y_unit: string;
}

const SIZE = 12;
const HEIGHT = 420;

export const points: Module<PointsData> = { scene, csv, title: (data) => data.title };

/** Draw points into an element. */
export function draw(
  target: HTMLElement,
  data: PointsData,
  theme: Theme,
  options?: Options,
): Drawing<PointsData> {
  return mount(points, target, data, theme, options);
}

function ends(values: readonly number[]): [number, number] {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const pad = 0.08 * (high - low || 1);
  return [low - pad, high + pad];
}

function scene(data: PointsData, theme: Theme, width: number, measure: Measure): Scene {
  const xs = ends(data.points.map((point) => point.x));
  const ys = ends(data.points.map((point) => point.y));
  const groups = [...new Set(data.points.map((point) => point.group))];
  const [left, right, top, bottom] = [64, width - 24, 10, HEIGHT - 40];
  const x = (value: number): number => left + ((value - xs[0]) / (xs[1] - xs[0])) * (right - left);
  const y = (value: number): number => bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (bottom - top);
  const text = { kind: "text" as const, fill: theme.muted, size: SIZE };
  const items: Item[] = [
    ...ticks(...xs, Math.max(2, Math.floor(width / 110))).flatMap((value): Item[] => [
      {
        kind: "line",
        points: [
          [x(value), top],
          [x(value), bottom],
        ],
        stroke: theme.line,
        width: 0.5,
      },
      { ...text, x: x(value), y: bottom + 14, text: valueOf(value, data.x_unit), anchor: "middle" },
    ]),
    ...ticks(...ys, 6).flatMap((value): Item[] => [
      {
        kind: "line",
        points: [
          [left, y(value)],
          [right, y(value)],
        ],
        stroke: theme.line,
        width: 0.5,
      },
      { ...text, x: left - 6, y: y(value), text: figure(value, 4), anchor: "end" },
    ]),
    { ...text, x: (left + right) / 2, y: HEIGHT - 9, text: data.x_unit, anchor: "middle" },
    { ...text, x: 9, y: (top + bottom) / 2, text: data.y_unit, turned: true, anchor: "middle" },
  ];
  const dots = data.points.map((point) => ({ x: x(point.x), y: y(point.y), label: tokenLabel(point.label) }));
  const frame = { left, right: width - 2, top, bottom };
  for (const [i, place] of labelPlaces(dots, frame, measure).entries()) {
    const point = data.points[i] as Dot;
    const colour = theme.accents[groups.indexOf(point.group) % theme.accents.length] ?? theme.text;
    items.push({ kind: "dot", x: x(point.x), y: y(point.y), radius: 5, fill: colour });
    if (place) items.push({ ...text, fill: theme.text, ...place });
  }
  const marks = data.points.map((point) => ({
    x: x(point.x) - 8,
    y: y(point.y) - 8,
    width: 16,
    height: 16,
    label: pointWords(data, point),
  }));
  return {
    width,
    height: HEIGHT,
    items,
    words: `Scatter plot of ${data.points.length} points.`,
    marks: listMarks(marks),
  };
}

interface Words {
  x: number;
  y: number;
  text: string;
  anchor: "start" | "middle" | "end";
}

/**
 * Return where the label of each dot stands: right of it, left, above or below, wherever it covers no other
 * dot and no label; null for one that has no room, which is shown when its dot is pointed at.
 */
export function labelPlaces(
  dots: readonly { x: number; y: number; label: string }[],
  frame: { left: number; right: number; top: number; bottom: number },
  measure: Measure,
): (Words | null)[] {
  const taken: { left: number; right: number; top: number; bottom: number }[] = [];
  return dots.map(({ x, y, label }, i) => {
    const wide = measure(label, SIZE);
    const ways: Words[] = [
      { x: x + 9, y, text: label, anchor: "start" },
      { x: x - 9, y, text: label, anchor: "end" },
      { x, y: y - 14, text: label, anchor: "middle" },
      { x, y: y + 14, text: label, anchor: "middle" },
    ];
    for (const way of ways) {
      const left = way.x - { start: 0, middle: wide / 2, end: wide }[way.anchor];
      const box = { left, right: left + wide, top: way.y - 7, bottom: way.y + 7 };
      const inside = box.left >= frame.left && box.right <= frame.right && box.top >= frame.top - 4;
      const meets = (other: typeof box): boolean =>
        box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom;
      const dotted = dots.some((dot, j) => {
        const round = { left: dot.x - 6, right: dot.x + 6, top: dot.y - 6, bottom: dot.y + 6 };
        return j !== i && meets(round);
      });
      if (!inside || box.bottom > frame.bottom || dotted || taken.some(meets)) continue;
      taken.push(box);
      return way;
    }
    return null;
  });
}

function pointWords(data: PointsData, point: Dot): string {
  const group = point.group ? ` (${point.group})` : "";
  const unit = (name: string): string => (name ? ` ${name}` : "");
  const across = `${valueOf(point.x, data.x_unit)}${unit(data.x_unit)}`;
  return `${quoted(point.label)}${group}: ${across}, ${figure(point.y, 4)}${unit(data.y_unit)}`;
}

function csv(data: PointsData): string {
  const rows = data.points.map((point) => [point.label, point.group, point.x, point.y]);
  return csvOf([["label", "group", data.x_unit || "x", data.y_unit || "y"], ...rows]);
}
