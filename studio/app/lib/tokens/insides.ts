// What the model computed where it predicted one token: distribution, lens, attention.
import { post } from "../net/api";

export interface Likely {
  id: number;
  token: string;
  logprob: number;
}

export interface LensRow {
  layer: number;
  top: Likely[];
}

export interface HeadWeights {
  layer: number;
  head: number;
  weights: number[];
}

interface Inspected {
  choices: { inspect: { top?: Likely[]; entropy?: number; lens?: LensRow[]; attention?: HeadWeights[] }[] }[];
}

export interface Insides {
  top: Likely[];
  entropy: number;
  lens: LensRow[];
}

type Where = { ids: number[]; model: Record<string, unknown> };

/** Distribution and lens at the last of these tokens: computed where it was predicted. */
export async function insides(where: Where, signal?: AbortSignal): Promise<Insides> {
  const record = await inspect(where, { top: 10, entropy: true, lens: { top: 1 } }, signal);
  return { top: record.top ?? [], entropy: record.entropy ?? 0, lens: record.lens ?? [] };
}

/** Weights of all heads where the last of these tokens was predicted. */
export async function attention(where: Where, layers: number, heads: number, signal?: AbortSignal) {
  const pairs = Array.from({ length: layers * heads }, (_, i) => [Math.floor(i / heads), i % heads]);
  return (await inspect(where, { attention: pairs }, signal)).attention ?? [];
}

async function inspect({ ids, model }: Where, what: object, signal?: AbortSignal) {
  const prompt = [ids.length - 1, ids.length];
  const body = { prompt: ids, max_tokens: 0, inspect: { ...what, prompt }, ...model };
  const answer = await post<Inspected>("/v1/completions", body, signal);
  return answer.choices[0]?.inspect[0] ?? {};
}

/** The likeliest next tokens after these. */
export async function next(where: Where, signal?: AbortSignal): Promise<Likely[]> {
  const body = { prompt: where.ids, max_tokens: 1, temperature: 0, inspect: { top: 20 }, ...where.model };
  const answer = await post<Inspected>("/v1/completions", body, signal);
  return answer.choices[0]?.inspect[0]?.top ?? [];
}

export interface Strong {
  layer: number;
  head: number;
  most: number; // its largest weight, the first token aside
  weights: number[];
}

/** Heads with the largest weights. The first token, on which idle heads rest, is left out of account. */
export function strongest(all: HeadWeights[], count: number): Strong[] {
  return all
    .map(({ layer, head, weights }) => ({ layer, head, weights, most: Math.max(0, ...weights.slice(1)) }))
    .sort((a, b) => b.most - a.most)
    .slice(0, count);
}
