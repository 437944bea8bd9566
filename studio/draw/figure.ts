// Any figure of a view, drawn by the module of its kind.
import * as bars from "./bars";
import * as curves from "./curves";
import type { Drawing, Options } from "./drawing";
import * as heatmap from "./heatmap";
import * as lens from "./lens";
import * as next from "./next";
import * as points from "./points";
import * as roles from "./roles";
import * as stack from "./stack";
import type { Theme } from "./theme";
import * as tokens from "./tokens";
import * as tree from "./tree";

export type FigureData =
  | bars.BarsData
  | curves.CurvesData
  | heatmap.HeatmapData
  | lens.LensData
  | next.NextData
  | points.PointsData
  | roles.RolesData
  | stack.StackData
  | tokens.TokensData
  | tree.TreeData;

const DRAW: Record<
  string,
  (target: HTMLElement, data: never, theme: Theme, options?: Options) => Drawing<never>
> = {
  bars: bars.draw,
  curves: curves.draw,
  heatmap: heatmap.draw,
  lens: lens.draw,
  next: next.draw,
  points: points.draw,
  roles: roles.draw,
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
