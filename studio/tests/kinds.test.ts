// Every kind of figure: as a scene in both themes, wide and narrow; as SVG, CSV, PNG's canvas and one HTML
// file.
import { expect, test } from "vitest";
import { bars } from "../draw/bars";
import { curves } from "../draw/curves";
import { diagram } from "../draw/diagram";
import type { Module } from "../draw/drawing";
import type { FigureData } from "../draw/figure";
import { heatmap } from "../draw/heatmap";
import { lens } from "../draw/lens";
import { barsOf } from "../draw/next";
import { halves, unpacked } from "../draw/packed";
import { points } from "../draw/points";
import { axisOf, ranges } from "../draw/ranges";
import { roles } from "../draw/roles";
import { OFF } from "../draw/sampling";
import { csvRows, htmlOf } from "../draw/save";
import { paint, type Scene, svgOf } from "../draw/scene";
import { split } from "../draw/split";
import { layerOf } from "../draw/stack";
import { DARK, LIGHT, type Theme } from "../draw/theme";
import { stripFile, stripScene } from "../draw/tokens";
import { tree } from "../draw/tree";
import { wrapped } from "../draw/words";

type Kind = FigureData["kind"];
type Of<K extends Kind> = Extract<FigureData, { kind: K }>;

const HOSTILE = '</svg><script>alert("x")</script>';
const TOKENS = [" The", HOSTILE, "\n", "日本", "-".repeat(90)];
const ends = { low: 0, high: 1, diverging: false, unit: "weight" };
const square = TOKENS.map((_, r) => TOKENS.map((_, c) => (c > r ? null : 0.25)));
const step = { title: HOSTILE, weights: "64 x 96", output: "(T, 64)", parameters: 6144 };
const stacks = (["embedding", "attention", "feed-forward", "output"] as const).map((name, i) => ({
  name,
  in_block: i === 1 || i === 2,
  adds: i === 2 ? "X_new = X + dX" : "",
  steps: [step, { ...step, parameters: 0 }],
}));
const quantiles = TOKENS.map((_, i) => [-1 - i, -0.5, 0, 0.5, i ? 1 : 900]);

const FIGURES: { [K in Kind]: Of<K> } = {
  bars: { kind: "bars", title: HOSTILE, labels: TOKENS, values: [1, 2, null, 0, 3], unit: "tokens" },
  curves: {
    kind: "curves",
    title: HOSTILE,
    series: [{ name: HOSTILE, x: [1, 10, 100, 1000, 10000], y: [0.5, 0.1, null, 0.02, 0.001] }],
    x_unit: "masks",
    y_unit: "error",
    logarithmic: ["x", "y"],
  },
  diagram: { kind: "diagram", title: HOSTILE, stream: "(T, 64)", block: HOSTILE, stacks, blocks: TOKENS },
  heatmap: { kind: "heatmap", title: HOSTILE, rows: TOKENS, columns: TOKENS, values: square, ...ends },
  lens: {
    kind: "lens",
    title: HOSTILE,
    tokens: TOKENS,
    layers: ["block 0"],
    cells: [TOKENS.map((text) => ({ text, probability: 0.5 }))],
  },
  next: {
    kind: "next",
    title: HOSTILE,
    tokens: TOKENS.map((text, id) => ({ text, id, logit: 5 - id })),
    logits: { count: 5, low: 0, high: 1, packed: btoa("\x05\x00\x04\x00\x03\x00\x02\x00\x01\x00") },
    unit: "probability",
  },
  points: {
    kind: "points",
    title: HOSTILE,
    points: TOKENS.map((label, i) => ({ label, x: i, y: i * i, group: HOSTILE })),
    x_unit: "",
    y_unit: "",
  },
  ranges: {
    kind: "ranges",
    title: HOSTILE,
    labels: TOKENS,
    quantiles: ["smallest", "5 %", "median", "95 %", "largest"],
    panels: ["before", "between", "after"].map((title) => ({ title, quantiles, means: [0, 1, 0, 0, 0] })),
    unit: "value of a feature",
  },
  roles: {
    kind: "roles",
    title: HOSTILE,
    axes: ["layer", "head"],
    columns: ["0"],
    rows: ["0", "1"],
    names: [["", HOSTILE]],
    marked: [0, 1],
  },
  split: { kind: "split", title: HOSTILE, tokens: TOKENS.map((text, id) => ({ text, id })) },
  stack: {
    kind: "stack",
    title: HOSTILE,
    pickers: ["layer", "head"].map((name) => ({ name, labels: ["0"], at: 0 })),
    names: [[HOSTILE]],
    rows: TOKENS,
    columns: TOKENS,
    ...ends,
    halves: btoa("\x00\x38".repeat(25)),
  },
  tokens: {
    kind: "tokens",
    title: HOSTILE,
    tokens: TOKENS.map((text, id) => ({ text, id, value: id })),
    unit: "bits",
    low: 0,
    high: 4,
  },
  tree: {
    kind: "tree",
    title: HOSTILE,
    nodes: TOKENS.map((label, i) => ({ id: `${i}`, parent: i ? "0" : null, label })),
  },
};
const MODULES = { bars, curves, diagram, heatmap, lens, points, ranges, roles, split, tree };
const measure = (text: string, size: number): number => 0.6 * size * text.length;

/** Return the scene of a figure and its numbers: what its drawing shows first. */
function shown(figure: FigureData, theme: Theme, width: number): { scene: Scene; csv: string } {
  if (figure.kind === "tokens") {
    return { scene: stripScene(figure, theme, width), csv: stripFile(figure, theme, width).csv() };
  }
  if (figure.kind === "stack") return shown(layerOf(figure, halves(figure.halves), 0, 0), theme, width);
  if (figure.kind === "next") {
    const { packed, low, high } = figure.logits;
    return shown(barsOf(figure, unpacked(packed, low, high), OFF), theme, width);
  }
  const module = MODULES[figure.kind] as Module<FigureData>;
  return { scene: module.scene(figure, theme, width, measure), csv: module.csv(figure) };
}

/** A canvas that remembers the words it was given. */
function canvas(): { context: CanvasRenderingContext2D; words: string[] } {
  const words: string[] = [];
  const context = new Proxy({} as Record<string, unknown>, {
    get: (_, name) => (name === "fillText" ? (text: string) => words.push(text) : () => undefined),
    set: () => true,
  });
  return { context: context as unknown as CanvasRenderingContext2D, words };
}

test.each(Object.keys(FIGURES) as Kind[])("%s: four files, in both themes, wide and narrow", (kind) => {
  const figure = FIGURES[kind];
  for (const theme of [LIGHT, DARK]) {
    for (const width of [1000, 320]) {
      const { scene, csv } = shown(figure, theme, width);
      expect(scene.words).toBeTruthy();
      const svg = svgOf(scene, figure.title, theme.background);
      expect(svg).not.toMatch(/<script|NaN|undefined|Infinity/);
      const rows = csvRows(csv);
      expect(rows.length).toBeGreaterThan(1);
      expect(new Set(rows.map((row) => row.length)).size).toBe(1);
      const html = htmlOf(figure.title, svg, csv);
      expect(html).toContain("Content-Security-Policy");
      expect(html).not.toMatch(/<script/);
      const { context, words } = canvas();
      paint({ ...scene, items: scene.items.filter((item) => item.kind !== "raster") }, context, "#ffffff");
      expect(words).toEqual(scene.items.flatMap((item) => (item.kind === "text" ? [item.text] : [])));
      for (const item of scene.items) {
        if (item.kind !== "rect") continue;
        expect(item.x + item.width).toBeLessThanOrEqual(scene.width + 1);
        expect(item.y + item.height).toBeLessThanOrEqual(scene.height + 1);
      }
    }
  }
});

test("each kind tells what it shows when it is walked through", () => {
  const label = (kind: Kind, at: number): string =>
    shown(FIGURES[kind], LIGHT, 1000).scene.marks?.at(at).label ?? "";
  expect(label("split", 0)).toBe("Position 0: “ The”, token 0");
  expect(label("ranges", 0)).toBe(
    "before, “ The”: mean 0; smallest -1, 5 % -0.5, median 0, 95 % 0.5, largest 900",
  );
  expect(label("diagram", 0)).toContain("embedding: ");
  expect(label("diagram", 2)).toBe("Block 0: a token sees  The");
  expect(label("curves", 1)).toBe("masks 10: 0.1");
});

test("an axis with far values is linear within the usual ones and logarithmic beyond", () => {
  const far = axisOf({ title: "", quantiles, means: [] });
  expect(far.usual).toBe(0.5);
  expect([0, 900, -900].map((value) => far.share(value))).toEqual([
    0.5,
    expect.closeTo(0.98, 2),
    expect.closeTo(0.02, 2),
  ]);
  const near = axisOf({ title: "", quantiles: quantiles.slice(1), means: [] });
  expect([near.usual, near.share(0)]).toEqual([null, 0.5]);
});

test("sentences are broken at spaces", () => {
  expect(wrapped("one two three", 7, (line) => line.length)).toEqual(["one two", "three"]);
  expect(wrapped("longest", 3, (line) => line.length)).toEqual(["longest"]);
});
