// One answer of the model, streamed: prompt ids go in, tokens with their distributions come out.
import { ApiError, type Fetch, send } from "./api";
import { events } from "./sse";
import type { Token } from "../types";

const TOP = 10;
const INTERVAL = 100; // milliseconds between two pieces of a stream: each wakes server, browser and page
// A model's process that ended is back as soon as it has read its files. Until then the page asks often, then
// less often, and gives up at last.
const SOON = { pause: 250, until: 10_000 }; // milliseconds, of waiting
const LATE = { pause: 1_000, until: 120_000 };

export interface Request {
  model?: string | null;
  adapters?: { name: string; scale: number }[];
  prompt: number[];
  max_tokens: number;
  seed: number;
  [setting: string]: unknown;
}

export interface Outcome {
  finish: string | null; // null if it was cancelled
  seed: number;
  cached: number; // tokens of the prompt that were not computed again
  rate: number | null; // tokens a second
}

/** What the page is told while an answer is written. */
export interface Listener {
  tokens?(tokens: Token[]): void;
  progress?(done: number, total: number): void; // of the prompt
  lost?(reason: string): void; // the model's process ended; what came is kept, and it goes on by itself
  back?(): void;
}

/** Write an answer. Tokens come to `listener`; after a crash of the model's process it is continued. */
export async function answer(
  request: Request,
  listener: Listener,
  signal: AbortSignal,
  fetcher: Fetch = fetch,
  pause: (milliseconds: number) => Promise<void> = wait,
): Promise<Outcome> {
  const got: Token[] = [];
  const outcome: Outcome = { finish: null, seed: request.seed, cached: 0, rate: null };
  const counting: Listener = {
    ...listener,
    tokens(tokens) {
      got.push(...tokens);
      listener.tokens?.(tokens);
    },
  };
  for (let waited = 0; !signal.aborted;) {
    const before = got.length;
    try {
      const rest = {
        ...request,
        prompt: [...request.prompt, ...got.map((token) => token.id)],
        max_tokens: request.max_tokens - got.length,
      };
      await attempt(rest, counting, outcome, signal, fetcher);
      return outcome;
    } catch (error) {
      if (signal.aborted) break;
      if (got.length > before) waited = 0;
      if (!temporary(error) || waited >= LATE.until) throw error;
      listener.lost?.((error as Error).message);
      const next = waited < SOON.until ? SOON : LATE;
      await pause(next.pause);
      waited += next.pause;
      if (got.length >= request.max_tokens) return { ...outcome, finish: "length" };
    }
  }
  return outcome;
}

/** True for failures after which the same request can succeed: the process ended, the connection broke. */
export function temporary(error: unknown): boolean {
  if (error instanceof ApiError) return error.status === 503 || error.code === "engine_dead";
  return error instanceof TypeError || error instanceof Torn; // fetch raises TypeError if nobody answers
}

/** A stream that ended without its last line. */
class Torn extends Error {}

interface Piece {
  error?: { message: string; code?: string | null; type?: string };
  choices?: {
    text: string;
    finish_reason: string | null;
    inspect?: Inside[];
  }[];
  prompt_progress?: { total: number; processed: number };
  usage?: { prompt_tokens_details?: { cached_tokens: number } } | null;
  timings?: { predicted_per_second: number | null };
  seed?: number;
}

interface Inside {
  id: number;
  token: string;
  logprob: number;
  entropy: number;
  top: { id: number; token: string; logprob: number }[];
}

async function attempt(
  request: Request,
  listener: Listener,
  outcome: Outcome,
  signal: AbortSignal,
  fetcher: Fetch,
): Promise<void> {
  const options = { include_usage: true, interval_ms: INTERVAL };
  const extra = { logprobs: 0, stream: true, stream_options: options, return_progress: true };
  const body = JSON.stringify({ ...request, ...extra, inspect: { top: TOP, entropy: true } });
  const headers = { "Content-Type": "application/json" };
  const response = await send("/v1/completions", { method: "POST", headers, body, signal }, fetcher);
  if (!response.body) throw new Torn("no stream");
  listener.back?.();
  const assembler = new Assembler();
  for await (const event of events(response.body)) {
    if (event.data === "[DONE]") return;
    const piece = JSON.parse(event.data) as Piece;
    if (piece.error) throw new ApiError(500, piece.error.message, piece.error.code ?? null);
    take(piece, listener, outcome, assembler);
  }
  throw new Torn("the stream ended early");
}

function take(piece: Piece, listener: Listener, outcome: Outcome, assembler: Assembler): void {
  const progress = piece.prompt_progress;
  if (progress) listener.progress?.(progress.processed, progress.total);
  const choice = piece.choices?.[0];
  if (choice) {
    const tokens = assembler.take(choice.text, choice.inspect ?? []);
    if (tokens.length > 0) listener.tokens?.(tokens);
    if (choice.finish_reason) outcome.finish = choice.finish_reason;
  }
  if (piece.seed !== undefined) outcome.seed = piece.seed;
  if (piece.timings) outcome.rate = piece.timings.predicted_per_second;
  const cached = piece.usage?.prompt_tokens_details?.cached_tokens;
  if (cached !== undefined) outcome.cached = Math.max(outcome.cached, cached);
}

/** Brings texts and records of a stream together: a character's text comes with the last of its tokens. */
export class Assembler {
  take(text: string, records: Inside[]): Token[] {
    const whole = records.map((record) => record.token).join("") === text;
    return records.map((record, i) => {
      const own = whole ? record.token : i === records.length - 1 ? text : "";
      const token: Token = {
        id: record.id,
        text: own,
        logprob: record.logprob,
        entropy: record.entropy,
        top: record.top.map((one) => [one.id, one.token, one.logprob]),
      };
      if (record.token !== own) token.piece = record.token;
      return token;
    });
  }
}

function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
