// A picture as plain data: rectangles, words, lines, dots and a raster, with marks that can be pointed at.
// Modules compute scenes from data and theme without a browser; `paint` puts one on a canvas, `svgOf` in a
// file.
import { pngUri } from "./png";

export type Item =
  | {
      kind: "rect";
      x: number;
      y: number;
      width: number;
      height: number;
      fill: string;
      stroke?: string;
      radius?: number;
    }
  | {
      kind: "text";
      x: number;
      y: number;
      text: string;
      fill: string;
      size: number;
      anchor?: "start" | "middle" | "end";
      bold?: boolean;
      turned?: boolean;
    }
  | {
      kind: "line";
      points: readonly Point[];
      stroke: string;
      width: number;
      dash?: readonly number[];
      closed?: boolean;
    }
  | { kind: "dot"; x: number; y: number; radius: number; fill: string }
  | {
      kind: "raster";
      x: number;
      y: number;
      width: number;
      height: number;
      columns: number;
      rows: number;
      pixels: Uint8ClampedArray;
    };
export type Point = readonly [x: number, y: number];

/** One thing that can be pointed at, walked to and chosen. */
export interface Mark {
  x: number;
  y: number;
  width: number;
  height: number;
  label: string;
  /** True for one that is the choice of now. */
  current?: boolean;
}

/** The marks of a scene by number: a grid of 40,000 cells holds none of them in memory. */
export interface Marks {
  count: number;
  start: number;
  at(index: number): Mark;
  /** Return the mark at a point, or -1. */
  find(x: number, y: number): number;
  /** Return the mark that a key leads to. */
  step(index: number, key: string): number;
}

export interface Scene {
  width: number;
  height: number;
  items: Item[];
  /** The picture in words, for readers who do not see it. */
  words: string;
  marks?: Marks;
}

/** Return the width of a text in pixels. */
export type Measure = (text: string, size: number, bold?: boolean) => number;

export const FONT = 'system-ui, "DejaVu Sans", sans-serif';

/** Draw a scene on a canvas whose context is scaled to CSS pixels. */
export function paint(scene: Scene, context: CanvasRenderingContext2D, background: string): void {
  context.fillStyle = background;
  context.fillRect(0, 0, scene.width, scene.height);
  for (const item of scene.items) paintItem(item, context);
}

function paintItem(item: Item, context: CanvasRenderingContext2D): void {
  switch (item.kind) {
    case "rect":
      context.beginPath();
      context.roundRect(item.x, item.y, item.width, item.height, item.radius ?? 0);
      context.fillStyle = item.fill;
      context.fill();
      if (item.stroke) {
        context.strokeStyle = item.stroke;
        context.lineWidth = 1;
        context.stroke();
      }
      break;
    case "text":
      context.save();
      context.font = `${item.bold ? "600 " : ""}${item.size}px ${FONT}`;
      context.fillStyle = item.fill;
      context.textAlign = item.anchor === "middle" ? "center" : (item.anchor ?? "start");
      context.textBaseline = "middle";
      context.translate(item.x, item.y);
      if (item.turned) context.rotate(-Math.PI / 2);
      context.fillText(item.text, 0, 0);
      context.restore();
      break;
    case "line":
      context.beginPath();
      item.points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (item.closed) context.closePath();
      context.setLineDash(item.dash ? [...item.dash] : []);
      context.strokeStyle = item.stroke;
      context.lineWidth = item.width;
      context.lineJoin = "round";
      context.stroke();
      context.setLineDash([]);
      break;
    case "dot":
      context.beginPath();
      context.arc(item.x, item.y, item.radius, 0, 2 * Math.PI);
      context.fillStyle = item.fill;
      context.fill();
      break;
    case "raster": {
      const small = new OffscreenCanvas(item.columns, item.rows);
      const pixels = new ImageData(item.columns, item.rows);
      pixels.data.set(item.pixels);
      small.getContext("2d")?.putImageData(pixels, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, item.x, item.y, item.width, item.height);
    }
  }
}

/** Return a scene as an SVG file with title and description. */
export function svgOf(scene: Scene, title: string, background: string): string {
  const { width, height } = scene;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"`,
    ` viewBox="0 0 ${width} ${height}"`,
    ` role="img" aria-labelledby="title description" font-family="${escaped(FONT)}">\n`,
    `<title id="title">${escaped(title)}</title>\n<desc id="description">${escaped(scene.words)}</desc>\n`,
    `<rect width="${width}" height="${height}" fill="${background}"/>\n`,
    ...scene.items.map((item) => `${svgItem(item)}\n`),
    "</svg>\n",
  ].join("");
}

function svgItem(item: Item): string {
  switch (item.kind) {
    case "rect": {
      const stroke = item.stroke ? ` stroke="${item.stroke}"` : "";
      const radius = item.radius ? ` rx="${item.radius}"` : "";
      return `<rect ${boxOf(item)}${radius} fill="${item.fill}"${stroke}/>`;
    }
    case "text": {
      const anchor = item.anchor && item.anchor !== "start" ? ` text-anchor="${item.anchor}"` : "";
      const place = item.turned
        ? `transform="translate(${n(item.x)} ${n(item.y)}) rotate(-90)"`
        : `x="${n(item.x)}" y="${n(item.y)}"`;
      const bold = item.bold ? ' font-weight="600"' : "";
      const look = `font-size="${item.size}" fill="${item.fill}"${anchor}${bold} dominant-baseline="central"`;
      return `<text ${place} ${look} xml:space="preserve">${escaped(item.text)}</text>`;
    }
    case "line": {
      const dash = item.dash ? ` stroke-dasharray="${item.dash.join(" ")}"` : "";
      const points = item.points.map(([x, y]) => `${n(x)},${n(y)}`).join(" ");
      const tag = item.closed ? "polygon" : "polyline";
      const stroke = `stroke="${item.stroke}" stroke-width="${item.width}" stroke-linejoin="round"`;
      return `<${tag} points="${points}" fill="none" ${stroke}${dash}/>`;
    }
    case "dot":
      return `<circle cx="${n(item.x)}" cy="${n(item.y)}" r="${n(item.radius)}" fill="${item.fill}"/>`;
    case "raster":
      return [
        `<image ${boxOf(item)} preserveAspectRatio="none" style="image-rendering: pixelated"`,
        ` href="${pngUri(item.pixels, item.columns, item.rows)}"/>`,
      ].join("");
  }
}

function boxOf({ x, y, width, height }: { x: number; y: number; width: number; height: number }): string {
  return `x="${n(x)}" y="${n(y)}" width="${n(width)}" height="${n(height)}"`;
}

/** Return a coordinate with at most two decimals. */
function n(value: number): string {
  return String(Math.round(value * 100) / 100);
}

/** Return text for an XML file: markup as entities, and what XML cannot hold as the replacement character. */
export function escaped(text: string): string {
  return text
    .replace(/[^\t\n\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd")
    .replace(
      /[&<>"]/g,
      (found) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[found] ?? found,
    );
}

/** Return the marks of a list from top to bottom: arrow keys walk along it. */
export function listMarks(marks: readonly Mark[], start = 0): Marks {
  const last = marks.length - 1;
  return {
    count: marks.length,
    start,
    at: (index) => marks[index] as Mark,
    find: (x, y) => marks.findIndex((m) => x >= m.x && x < m.x + m.width && y >= m.y && y < m.y + m.height),
    step: (index, key) => {
      const steps: Record<string, number> = {
        ArrowDown: index + 1,
        ArrowRight: index + 1,
        ArrowUp: index - 1,
        ArrowLeft: index - 1,
        Home: 0,
        End: last,
      };
      return Math.min(Math.max(steps[key] ?? index, 0), last);
    },
  };
}

/** The place of a grid of equal cells. */
export interface Grid {
  x: number;
  y: number;
  cellWidth: number;
  cellHeight: number;
  rows: number;
  columns: number;
}

/** Return the marks of a grid: arrow keys walk in four directions, Home and End along a row. */
export function gridMarks(grid: Grid, label: (row: number, column: number) => string, start = 0): Marks {
  const { x, y, cellWidth, cellHeight, rows, columns } = grid;
  return {
    count: rows * columns,
    start,
    at: (index) => {
      const row = Math.floor(index / columns);
      const column = index % columns;
      return {
        x: x + column * cellWidth,
        y: y + row * cellHeight,
        width: cellWidth,
        height: cellHeight,
        label: label(row, column),
      };
    },
    find: (px, py) => {
      const column = Math.floor((px - x) / cellWidth);
      const row = Math.floor((py - y) / cellHeight);
      return column >= 0 && column < columns && row >= 0 && row < rows ? row * columns + column : -1;
    },
    step: (index, key) => {
      let row = Math.floor(index / columns);
      let column = index % columns;
      if (key === "ArrowDown") row = Math.min(row + 1, rows - 1);
      if (key === "ArrowUp") row = Math.max(row - 1, 0);
      if (key === "ArrowRight") column = Math.min(column + 1, columns - 1);
      if (key === "ArrowLeft") column = Math.max(column - 1, 0);
      if (key === "Home") column = 0;
      if (key === "End") column = columns - 1;
      return row * columns + column;
    },
  };
}
