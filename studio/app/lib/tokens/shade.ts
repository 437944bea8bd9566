// The colour of a token: how likely it was, or how unsure the model was.
import { colourAt, css, readableOn, type Theme } from "../../../draw/theme";
import type { Token } from "../types";

export type Colouring = "none" | "probability" | "entropy";
export const COLOURINGS: readonly Colouring[] = ["none", "probability", "entropy"];
export const MOST = 6; // nats: a probability of 0.25 %, about 400 equally likely tokens

/**
 * Return background and letters, or undefined without colouring. Surprising and unsure tokens are dark
 * orange.
 */
export function shade(
  token: Pick<Token, "logprob" | "entropy">,
  colouring: Colouring,
  theme: Theme,
): { background: string; text: string } | undefined {
  if (colouring === "none") return undefined;
  const surprise = Math.min(1, (colouring === "probability" ? -token.logprob : token.entropy) / MOST);
  const colour = colourAt(theme.diverging, 0.5 + surprise / 2);
  return { background: css(colour), text: readableOn(colour) };
}
