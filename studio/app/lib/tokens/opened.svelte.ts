// The token that is open in the panel, and what the model computed there.
import { app } from "../app.svelte";
import type { Token } from "../types";
import { attention, type Insides, insides, type Strong, strongest } from "./insides";

const HEADS = 5;

export interface Where {
  ids: number[]; // up to the token, itself included
  texts: string[];
  token: Token | null; // null for a token of the prompt
  turn: string | null;
  index: number; // in the turn, or in the prompt
  seed: number | null;
}

export class Opened {
  where = $state.raw<Where | null>(null);
  inside = $state.raw<Insides | null>(null);
  heads = $state.raw<Strong[] | null>(null);
  failure = $state<string | null>(null);
  private control = new AbortController();

  close(): void {
    this.control.abort();
    this.where = null;
  }

  /** Open a token: its distribution and lens come first, the heads after them. */
  async open(where: Where, model: Record<string, unknown>): Promise<void> {
    this.control.abort();
    const control = (this.control = new AbortController());
    this.where = where;
    this.inside = this.heads = this.failure = null;
    if (where.ids.length < 2) return; // nothing predicted the first token
    try {
      const place = { ids: where.ids, model };
      this.inside = await insides(place, control.signal);
      const facts = app.state?.models.find((one) => one.id === (model.model ?? app.state?.model));
      const layers = facts?.layers ?? this.inside.lens.length;
      const all = await attention(place, layers, facts?.heads ?? 1, control.signal);
      if (!control.signal.aborted) this.heads = strongest(all, HEADS);
    } catch (error) {
      if (!control.signal.aborted) this.failure = (error as Error).message;
    }
  }
}
