// Turns as the server keeps them, and as the page uses them.
import type { Settings, Token, Turn } from "../types";

export interface KeptTurn {
  id: string;
  parent: string | null;
  role: Turn["role"] | "tool";
  text: string;
  tokens?: KeptToken[] | null;
  given?: number | null; // tokens at the beginning of the answer that were kept or chosen, not generated
  prompt?: number[] | null; // ids that the model was sent, those included
  settings?: (Partial<Settings> & Extra) | null;
  seed?: number | null;
  finish?: string | null;
  name?: string | null;
  model?: string | null;
}

interface KeptToken extends Omit<Token, "logprob" | "entropy" | "top" | "piece"> {
  logprob?: number | null;
  entropy?: number | null;
  top?: Token["top"] | null;
}

interface Extra {
  adapter?: string | null;
  cached?: number | null;
  rate?: number | null;
  pieces?: Record<string, string>; // texts of tokens that are no whole characters, or end the answer
}

/** A turn for the server, which has its first `after` tokens already. */
export function toKept(turn: Turn, after: number): KeptTurn & { after: number } {
  const pieces = Object.fromEntries(
    turn.tokens.flatMap((one, i) => (one.piece === undefined ? [] : [[i, one.piece]])),
  );
  const extra: Extra = {
    adapter: turn.adapter ?? null,
    cached: turn.cached ?? null,
    rate: turn.rate ?? null,
    pieces,
  };
  const given = turn.kept ?? 0;
  return {
    id: turn.id,
    parent: turn.parent,
    role: turn.role,
    text: turn.text,
    tokens: turn.tokens.slice(after).map(keptToken),
    after,
    given,
    prompt: turn.prompt_ids
      ? [...turn.prompt_ids, ...turn.tokens.slice(0, given).map((one) => one.id)]
      : null,
    settings: turn.role === "assistant" ? { ...turn.settings, ...extra } : {},
    seed: turn.seed ?? null,
    finish: turn.finish ?? null,
    name: turn.name ?? null,
    model: turn.model ?? null,
  };
}

function keptToken({ id, text, logprob, entropy, top }: Token): KeptToken {
  const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);
  return {
    id,
    text,
    logprob: finite(logprob),
    entropy: finite(entropy),
    top: top.filter((one) => Number.isFinite(one[2])),
  };
}

/** A turn as the server gives it back. */
export function fromKept(kept: KeptTurn): Turn {
  const { adapter = null, cached = null, rate = null, pieces = {}, ...settings } = kept.settings ?? {};
  const given = kept.given ?? 0;
  const tokens = (kept.tokens ?? []).map((one, i): Token => ({
    id: one.id,
    text: one.text,
    logprob: one.logprob ?? Number.NEGATIVE_INFINITY,
    entropy: one.entropy ?? 0,
    top: one.top ?? [],
    ...(pieces[i] === undefined ? {} : { piece: pieces[i] }),
  }));
  return {
    id: kept.id,
    parent: kept.parent,
    role: kept.role === "tool" ? "user" : kept.role,
    text: kept.text,
    tokens,
    settings: "temperature" in settings ? (settings as Settings) : null,
    seed: kept.seed ?? null,
    finish: kept.finish ?? null,
    name: kept.name ?? null,
    model: kept.model ?? null,
    adapter,
    cached,
    rate,
    kept: given || null,
    prompt_ids: kept.prompt ? kept.prompt.slice(0, kept.prompt.length - given) : null,
  };
}
