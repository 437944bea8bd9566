import { expect, test } from "vitest";
import { bars, type BarsData } from "../draw/bars";
import { curves, labelsOf, ticks } from "../draw/curves";
import { heatmap, type HeatmapData } from "../draw/heatmap";
import { lens } from "../draw/lens";
import { points } from "../draw/points";
import { namesOf, roles, type RolesData } from "../draw/roles";
import { csvRows, fileName, htmlOf } from "../draw/save";
import { type Scene, svgOf } from "../draw/scene";
import { layerOf, type StackData } from "../draw/stack";
import { DARK, LIGHT } from "../draw/theme";
import { stripScene } from "../draw/tokens";
import { placed, tree } from "../draw/tree";
import { figure, percent, quoted, tokenLabel } from "../draw/words";

const measure = (text: string, size: number): number => 0.6 * size * text.length;
const TEXT = ["The", " capital", " of", " Spain", " is"];

function heat(rows: number, columns: number): HeatmapData {
  const values = Array.from({ length: rows }, (_, r) =>
    Array.from({ length: columns }, (_, c) => (c > r ? null : 1 / (1 + r - c))),
  );
  const names = (count: number): string[] => Array.from({ length: count }, (_, i) => ` token${i}`);
  const ends = { low: 0, high: 1, diverging: false };
  return {
    kind: "heatmap",
    title: "weights",
    rows: names(rows),
    columns: names(columns),
    values,
    ...ends,
    unit: "weight",
  };
}

function texts(scene: Scene): string[] {
  return scene.items.flatMap((item) => (item.kind === "text" ? [item.text] : []));
}

function inside(scene: Scene): void {
  for (const item of scene.items) {
    if (item.kind === "rect" || item.kind === "raster") {
      expect(item.x + item.width).toBeLessThanOrEqual(scene.width + 1);
      expect(item.y + item.height).toBeLessThanOrEqual(scene.height + 1);
    }
  }
}

test("a heat map labels its cells, masks what is masked and finds cells by place and key", () => {
  const data = heat(5, 5);
  const scene = heatmap.scene(data, LIGHT, 700, measure);
  inside(scene);
  expect(texts(scene)).toContain("·token4");
  expect(texts(scene).filter((text) => text === "1.00")).toHaveLength(5);
  const marks = scene.marks;
  if (!marks) throw new Error("no marks");
  const cell = marks.at(7);
  expect(marks.find(cell.x + 1, cell.y + 1)).toBe(7);
  expect(marks.find(-1, 0)).toBe(-1);
  expect(cell.label).toBe("“ token1”, “ token2”: masked");
  expect(marks.at(5).label).toBe("“ token1”, “ token0”: 0.5");
  expect([
    marks.step(7, "ArrowDown"),
    marks.step(7, "ArrowLeft"),
    marks.step(7, "End"),
    marks.step(24, "ArrowDown"),
  ]).toEqual([12, 6, 9, 24]);
});

test("a large heat map is one raster with few labels", () => {
  const scene = heatmap.scene(heat(200, 200), DARK, 700, measure);
  inside(scene);
  expect(scene.width).toBeLessThanOrEqual(700);
  expect(scene.items.length).toBeLessThan(150);
  expect(scene.marks?.count).toBe(40_000);
});

test("bars have labels, numbers, and say what is marked", () => {
  const data: BarsData = {
    kind: "bars",
    title: "next",
    labels: TEXT,
    values: [0.5, 0.25, 0.1, null, 0],
    unit: "probability",
    marked: [1],
  };
  const scene = bars.scene(data, LIGHT, 500, measure);
  inside(scene);
  expect(texts(scene)).toEqual(expect.arrayContaining(["·capital", "50.0 %", "none", "0 %"]));
  expect(scene.marks?.at(1).label).toBe("2. “ capital”: 25.0 %, marked");
  expect(bars.csv(data)).toBe("label,probability\nThe,0.5\n capital,0.25\n of,0.1\n Spain,\n is,0\n");
});

test("the lens has the last block on top", () => {
  const cells = ["a", "b"].map((text) => TEXT.map(() => ({ text, probability: 0.3 })));
  const scene = lens.scene(
    { kind: "lens", title: "lens", tokens: TEXT, layers: ["block 0", "block 1"], cells },
    LIGHT,
    600,
    measure,
  );
  inside(scene);
  expect(scene.marks?.at(0).label).toBe("block 1, after “The”: “b” 30.0 %");
  expect(scene.marks?.at(9).label).toBe("block 0, after “ is”: “a” 30.0 %");
  const steps = {
    kind: "lens" as const,
    title: "lens",
    axis: "step",
    tokens: ["0", "9"],
    layers: ["block 0"],
  };
  const grown = { ...steps, cells: [cells[0]!.slice(0, 2)] };
  expect(lens.scene(grown, LIGHT, 600, measure).marks?.at(1).label).toBe("block 0, step 9: “a” 30.0 %");
  expect(lens.csv(grown).split("\n")[0]).toBe("layer,position,step,guess,probability");
});

test("curves break where values are missing, and tell all values of a place", () => {
  const series = [
    { name: "loss", x: [0, 1, 2], y: [3, null, 1] },
    { name: "validation", x: [0, 2], y: [3.5, 1.5] },
  ];
  const scene = curves.scene(
    { kind: "curves", title: "loss", series, x_unit: "step", y_unit: "nats" },
    LIGHT,
    600,
    measure,
  );
  expect(scene.marks?.at(2).label).toBe("step 2: loss 1; validation 1.5");
  expect(scene.words).toContain("loss: 3 at 0, 1 at 2");
  expect(ticks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
  expect(ticks(0.12, 0.31, 4)).toEqual([0.15, 0.2, 0.25, 0.3]);
  expect(labelsOf([3.138, 3.14, 3.142])).toEqual(["3.138", "3.14", "3.142"]);
  expect(labelsOf([1, 2, 2.5])).toEqual(["1", "2", "2.5"]);
});

test("points and tokens fit their width", () => {
  const dots = TEXT.map((label, i) => ({ x: i, y: -i, label, group: i % 2 ? "odd" : "even" }));
  inside(
    points.scene({ kind: "points", title: "map", points: dots, x_unit: "", y_unit: "" }, LIGHT, 500, measure),
  );
  const tokens = Array.from({ length: 80 }, (_, i) => ({
    text: i % 9 ? " word" : "\nline",
    id: i,
    value: i,
  }));
  const scene = stripScene(
    { kind: "tokens", title: "text", tokens, unit: "bits", low: 0, high: 80 },
    DARK,
    400,
  );
  inside(scene);
  expect(scene.height).toBeGreaterThan(200);
});

test("a tree has first children below and others beside, and keys walk along it", () => {
  const nodes = [
    { id: "a", parent: null, label: "question", current: true },
    { id: "b", parent: "a", label: "one answer" },
    { id: "c", parent: "a", label: "another", current: true },
    { id: "d", parent: "b", label: "more" },
  ];
  const places = placed(nodes).map(({ column, depth }) => [column, depth]);
  expect(places).toEqual([
    [0, 0],
    [0, 1],
    [1, 1],
    [0, 2],
  ]);
  const marks = tree.scene({ kind: "tree", title: "branches", nodes }, LIGHT, 400, measure).marks;
  if (!marks) throw new Error("no marks");
  expect(marks.start).toBe(2);
  expect([
    marks.step(2, "ArrowLeft"),
    marks.step(1, "ArrowDown"),
    marks.step(3, "ArrowUp"),
    marks.step(0, "ArrowUp"),
  ]).toEqual([1, 3, 1, 0]);
});

test("a tree of 4,000 nodes in one line is placed", () => {
  const nodes = Array.from({ length: 4000 }, (_, i) => ({
    id: `${i}`,
    parent: i ? `${i - 1}` : null,
    label: "x",
  }));
  expect(placed(nodes).at(-1)).toMatchObject({ column: 0, depth: 3999 });
});

test("a stack gives one map, masked where the numbers are", () => {
  const data: StackData = {
    kind: "stack",
    title: "attention",
    rows: ["a", "b"],
    columns: ["a", "b"],
    low: 0,
    high: 1,
    diverging: false,
    unit: "weight",
    halves: "",
    pickers: [
      { name: "layer", labels: ["0"], at: 0 },
      { name: "head", labels: ["0", "1"], at: 0 },
    ],
    names: [["", "previous token"]],
  };
  const values = new Float32Array([1, Number.NaN, 0.5, 0.5, 1, Number.NaN, 0, 1]);
  const map = layerOf(data, values, 0, 1);
  expect(map.title).toBe("layer 0, head 1: previous token");
  expect(map.values).toEqual([
    [1, null],
    [0, 1],
  ]);
});

test("a grid of roles has a legend, and its marks say layer, head and role", () => {
  const data: RolesData = {
    kind: "roles",
    title: "roles",
    axes: ["layer", "head"],
    columns: ["0", "1", "2"],
    rows: ["0", "1"],
    names: [
      ["", "induction"],
      ["previous token", ""],
      ["", "induction"],
    ],
    marked: [1, 0],
  };
  const scene = roles.scene(data, DARK, 400, measure);
  inside(scene);
  expect([...namesOf(data)]).toEqual([
    ["induction", 2],
    ["previous token", 1],
  ]);
  expect(texts(scene)).toEqual(expect.arrayContaining(["P", "I", "I  induction: 2"]));
  expect(scene.marks?.start).toBe(1);
  expect(scene.marks?.at(5).label).toBe("layer 2, head 1: induction");
  expect(roles.csv(data)).toContain("1,0,previous token\n");
});

test("an SVG file and an HTML file hold text as text", () => {
  const data = { ...heat(2, 2), rows: ["<script>alert(1)</script>", "\u0000&"], title: "<b>" };
  const svg = svgOf(heatmap.scene(data, LIGHT, 500, measure), data.title, LIGHT.background);
  expect(svg).not.toMatch(/<script|<b>|\u0000/);
  expect(svg).toContain("&lt;script>".replace(">", "&gt;"));
  expect(svg).toContain("data:image/png;base64,");
  const html = htmlOf("<i>", svg, heatmap.csv(data));
  expect(html).not.toMatch(/<script|<i>/);
  expect(csvRows('a,"b ""x"", c"\n1,\n')).toEqual([
    ["a", 'b "x", c'],
    ["1", ""],
  ]);
  expect(fileName("What “ Madrid” takes: 50 %")).toBe("what-madrid-takes-50");
});

test("words: labels, quotes and numbers", () => {
  expect(tokenLabel(" Spain\n\u202e")).toBe("·Spain\\n\\u202e");
  expect(tokenLabel("New York ")).toBe("New York·");
  expect(tokenLabel("x".repeat(50))).toHaveLength(24);
  expect(quoted("\t")).toBe("“\\t”");
  expect([figure(0.12345), figure(1234567), figure(1e-7), figure(null), figure(12)]).toEqual([
    "0.123",
    "1,234,567",
    "1.00e-7",
    "none",
    "12",
  ]);
  expect([1, 0.2134, 0.000021, 1e-9].map(percent)).toEqual(["100 %", "21.3 %", "0.0021 %", "< 0.0001 %"]);
});
