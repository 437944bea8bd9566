// Writing an answer again, to see that it comes out the same to the bit.
import { app } from "../app.svelte";
import type { Fetch } from "../net/api";
import { answer } from "../net/stream";
import { DEFAULTS, fields } from "../tokens/sampling";
import { model } from "./prompt";
import type { Settings, Token, Turn } from "../types";

export interface Replay {
  of: number; // tokens that were generated
  same: number; // those that came again before the first difference, with the same probabilities
}

export class Replays {
  of = $state.raw<Record<string, Replay | null>>({}); // by turn, null while one runs

  /** Write an answer once more, from the same tokens with the same seed, and compare every bit. */
  async run(turn: Turn): Promise<void> {
    if (this.of[turn.id] === null) return;
    this.of = { ...this.of, [turn.id]: null };
    let found: Replay | undefined;
    await app.tried(async () => void (found = await replayed(turn)));
    const { [turn.id]: _, ...others } = this.of;
    this.of = found ? { ...others, [turn.id]: found } : others;
  }
}

/** Generate the tokens of an answer again, those that were given aside. */
export async function replayed(turn: Turn, fetcher: Fetch = fetch): Promise<Replay> {
  const kept = turn.kept ?? 0;
  const wanted = turn.tokens.slice(kept);
  const got: Token[] = [];
  const prompt = [...(turn.prompt_ids ?? []), ...turn.tokens.slice(0, kept).map((token) => token.id)];
  const settings = { ...(turn.settings ?? DEFAULTS), seed: turn.seed ?? 0, max_tokens: wanted.length };
  const request = {
    ...model({ model: turn.model ?? null, adapter: turn.adapter ?? null }),
    ...fields(settings),
    prompt,
  };
  if (wanted.length > 0) {
    const listener = { tokens: (more: Token[]) => void got.push(...more) };
    await answer(request, listener, new AbortController().signal, fetcher);
  }
  const differs = wanted.findIndex((token, i) => !equal(token, got[i]));
  return { of: wanted.length, same: differs < 0 ? wanted.length : differs };
}

/** Compare what the engine computed there: the token, its probability, the entropy, and the ten likeliest. */
function equal(one: Token, other: Token | undefined): boolean {
  if (one.id !== other?.id || one.logprob !== other.logprob || one.entropy !== other.entropy) return false;
  return one.top.every(([id, , logprob], i) => other.top[i]?.[0] === id && other.top[i]?.[2] === logprob);
}

/** True if two settings draw the same tokens, however many. */
export function sameSamplers(one: Settings, other: Settings | null | undefined): boolean {
  const names = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"] as const;
  return names.every((name) => one[name] === (other ?? DEFAULTS)[name]);
}
