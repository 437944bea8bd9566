// Any figure of a view, drawn by the module of its kind.
import * as bars from "./bars";
import * as curves from "./curves";
import * as diagram from "./diagram";
import type { Drawing, Options } from "./drawing";
import * as heatmap from "./heatmap";
import * as lens from "./lens";
import * as next from "./next";
import * as points from "./points";
import * as ranges from "./ranges";
import * as roles from "./roles";
import * as split from "./split";
import * as stack from "./stack";
import type { Theme } from "./theme";
import * as tokens from "./tokens";
import * as tree from "./tree";

export type FigureData =
  | bars.BarsData
  | curves.CurvesData
  | diagram.DiagramData
  | heatmap.HeatmapData
  | lens.LensData
  | next.NextData
  | points.PointsData
  | ranges.RangesData
  | roles.RolesData
  | split.SplitData
  | stack.StackData
  | tokens.TokensData
  | tree.TreeData;

const DRAW: Record<
  FigureData["kind"],
  (target: HTMLElement, data: never, theme: Theme, options?: Options) => Drawing<never>
> = {
  bars: bars.draw,
  curves: curves.draw,
  diagram: diagram.draw,
  heatmap: heatmap.draw,
  lens: lens.draw,
  next: next.draw,
  points: points.draw,
  ranges: ranges.draw,
  roles: roles.draw,
  split: split.draw,
  stack: stack.draw,
  tokens: tokens.draw,
  tree: tree.draw,
};

/** Draw a figure into an element; null for a kind that has no module. */
export function draw(
  target: HTMLElement,
  data: FigureData,
  theme: Theme,
  options?: Options,
): Drawing<FigureData> | null {
  const module = DRAW[data.kind];
  return module ? (module(target, data as never, theme, options) as Drawing<FigureData>) : null;
}
