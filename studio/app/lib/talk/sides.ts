// Two branches side by side: where each one ends, and which model and adapter answer there.
import type { Turn } from "../types";

export interface Side {
  leaf: string | null; // the end of the branch; null before the first turn
  model: string | null;
  adapter: string | null;
}

export type Sides = [Side, Side];

/** The side of a branch: its last answer says who answers there. */
export function sideOf(path: Turn[], usual: Pick<Side, "model" | "adapter">): Side {
  const last = path.findLast((turn) => turn.role === "assistant");
  const { model = null, adapter = null } = last ?? usual;
  return { leaf: path.at(-1)?.id ?? null, model, adapter };
}

/** The sides with another end of one of them. */
export function moved(sides: Sides, at: 0 | 1, leaf: string): Sides {
  const [one, other] = sides;
  return at === 0 ? [{ ...one, leaf }, other] : [one, { ...other, leaf }];
}
