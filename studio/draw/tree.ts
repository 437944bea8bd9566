// The tree of a conversation: each node a box under its parent, the current path drawn strong.
import { type Drawing, mount, type Module, type Options } from "./drawing";
import { fitted } from "./heatmap";
import { type Item, type Mark, type Marks, type Measure, type Scene } from "./scene";
import type { Theme } from "./theme";
import { csvOf } from "./words";

export interface TreeNode {
  id: string;
  parent: string | null;
  label: string;
  /** True for the nodes from the root to the place where the conversation stands. */
  current?: boolean;
  /** The node in words, if the page has its own. */
  said?: string;
}

export interface TreeData {
  kind: "tree";
  title: string;
  nodes: readonly TreeNode[];
}

const SIZE = 12;
const [WIDE, TALL, GAP_X, GAP_Y] = [150, 28, 14, 22];

/** A node with its place: the column of the first leaf below it, and its distance from the root. */
interface Placed {
  node: TreeNode;
  index: number;
  column: number;
  depth: number;
  children: number[];
}

export const tree: Module<TreeData> = { scene, csv, title: (data) => data.title };

/** Draw a tree into an element; `onSelect` gets the number of a node. */
export function draw(
  target: HTMLElement,
  data: TreeData,
  theme: Theme,
  options?: Options,
): Drawing<TreeData> {
  return mount(tree, target, data, theme, options);
}

/** Place every node: the first child stands below its parent, the others to the right of all before them. */
export function placed(nodes: readonly TreeNode[]): Placed[] {
  const numbers = new Map(nodes.map((node, index) => [node.id, index]));
  const all: Placed[] = nodes.map((node, index) => ({ node, index, column: 0, depth: 0, children: [] }));
  const roots: number[] = [];
  nodes.forEach((node, index) => {
    const parent = node.parent === null ? undefined : numbers.get(node.parent);
    if (parent === undefined || parent === index) roots.push(index);
    else all[parent]?.children.push(index);
  });
  const waiting = roots.toReversed().map((index) => ({ index, depth: 0, first: true }));
  let column = -1;
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const place = all[next.index] as Placed;
    if (!next.first || next.depth === 0) column += 1;
    Object.assign(place, { column, depth: next.depth });
    const children = place.children.map((index, i) => ({ index, depth: place.depth + 1, first: i === 0 }));
    waiting.push(...children.toReversed());
  }
  return all;
}

function scene(data: TreeData, theme: Theme, width: number, measure: Measure): Scene {
  const places = placed(data.nodes);
  const x = (place: Placed): number => 4 + place.column * (WIDE + GAP_X);
  const y = (place: Placed): number => 4 + place.depth * (TALL + GAP_Y);
  const items: Item[] = [];
  for (const place of places) {
    for (const child of place.children.map((index) => places[index] as Placed)) {
      const strong = place.node.current && child.node.current;
      const [fromX, fromY, toX, toY] = [x(place) + WIDE / 2, y(place) + TALL, x(child) + WIDE / 2, y(child)];
      const middle = fromY + GAP_Y / 2;
      items.push({
        kind: "line",
        points: [
          [fromX, fromY],
          [fromX, middle],
          [toX, middle],
          [toX, toY],
        ],
        stroke: (strong ? theme.accents[0] : theme.muted) ?? theme.text,
        width: strong ? 3 : 1,
      });
    }
  }
  const marks: Mark[] = places.map((place) => {
    const { current, label } = place.node;
    const box = { x: x(place), y: y(place), width: WIDE, height: TALL };
    items.push(
      {
        kind: "rect",
        ...box,
        radius: 6,
        fill: theme.surface,
        stroke: (current ? theme.accents[0] : theme.line) ?? theme.line,
      },
      {
        kind: "text",
        x: box.x + 8,
        y: box.y + TALL / 2,
        text: fitted(label.replace(/\s+/g, " "), WIDE - 16, (text, size) => measure(text, size, current)),
        fill: theme.text,
        size: SIZE,
        bold: current ?? false,
      },
    );
    return { ...box, label: place.node.said ?? nodeWords(place), current: current ?? false };
  });
  const columns = Math.max(0, ...places.map((place) => place.column)) + 1;
  const depth = Math.max(0, ...places.map((place) => place.depth)) + 1;
  return {
    width: Math.max(width, columns * (WIDE + GAP_X)),
    height: 8 + depth * (TALL + GAP_Y) - GAP_Y,
    items,
    words: `A tree of ${places.length} nodes, ${columns} ${columns === 1 ? "branch" : "branches"}.`,
    marks: treeMarks(places, marks),
  };
}

/** Return the marks of a tree: up to the parent, down to the first child, left and right between siblings. */
function treeMarks(places: readonly Placed[], marks: readonly Mark[]): Marks {
  const parents = new Map(places.flatMap((place) => place.children.map((child) => [child, place.index])));
  const roots = places.filter((place) => !parents.has(place.index)).map((place) => place.index);
  const siblings = (index: number): number[] => {
    const parent = parents.get(index);
    return parent === undefined ? roots : (places[parent]?.children ?? []);
  };
  return {
    count: marks.length,
    start: Math.max(
      places.findLastIndex((place) => place.node.current),
      0,
    ),
    at: (index) => marks[index] as Mark,
    find: (x, y) => marks.findIndex((m) => x >= m.x && x < m.x + m.width && y >= m.y && y < m.y + m.height),
    step: (index, key) => {
      const around = siblings(index);
      const at = around.indexOf(index);
      const to = {
        ArrowUp: parents.get(index),
        ArrowDown: places[index]?.children[0],
        ArrowLeft: around[at - 1],
        ArrowRight: around[at + 1],
        Home: roots[0],
        End: places.length - 1,
      }[key];
      return to ?? index;
    },
  };
}

function nodeWords(place: Placed): string {
  const children = place.children.length;
  const parts = children > 1 ? `, ${children} branches` : "";
  return `${place.node.label}${parts}${place.node.current ? ", on the current path" : ""}`;
}

function csv(data: TreeData): string {
  return csvOf([
    ["id", "parent", "label", "current"],
    ...data.nodes.map((node) => [node.id, node.parent, node.label, node.current ? 1 : 0]),
  ]);
}
