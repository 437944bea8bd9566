// What samplers leave of a distribution, as the engine does it: top-k, top-p and min-p see the model's own
// probabilities, and the temperature comes last.
import type { Settings } from "../types";

export interface Candidate {
  id: number;
  text: string;
  probability: number; // the model's
  chance: number; // after the samplers; 0 if they leave it out
}

export const DEFAULTS: Settings = {
  temperature: 0.8,
  top_k: 40,
  top_p: 1,
  min_p: 0,
  repetition_penalty: 1,
  max_tokens: 200,
  seed: null,
};

/** Chances of the likeliest tokens, in order. Those beyond the list count as one rest that is not cut. */
export function survivors(
  top: readonly (readonly [id: number, text: string, logprob: number])[],
  settings: Settings,
): Candidate[] {
  const probabilities = top.map(([, , logprob]) => Math.exp(logprob));
  const kept = probabilities.map(() => true);
  if (settings.top_k > 0) kept.forEach((_, i) => (kept[i] &&= i < settings.top_k));
  let sum = 0;
  const all =
    settings.top_k > 0 && settings.top_k <= top.length
      ? probabilities.slice(0, settings.top_k).reduce((a, b) => a + b, 0)
      : 1;
  probabilities.forEach((probability, i) => {
    if (settings.top_p < 1 && sum >= settings.top_p * all) kept[i] = false;
    sum += probability;
    if (probability < settings.min_p * (probabilities[0] ?? 0)) kept[i] = false;
  });
  const weights = heated(probabilities, kept, settings.temperature);
  const rest = open(settings, kept) ? Math.max(0, 1 - probabilities.reduce((a, b) => a + b, 0)) : 0;
  const total = weights.reduce((a, b) => a + b, 0) + (settings.temperature === 1 ? rest : 0);
  return top.map(([id, text], i) => ({
    id,
    text,
    probability: probabilities[i] as number,
    chance: total > 0 ? (weights[i] as number) / total : 0,
  }));
}

/** True if tokens beyond the list may survive too. */
function open(settings: Settings, kept: boolean[]): boolean {
  return kept.every(Boolean) && (settings.top_k === 0 || settings.top_k > kept.length);
}

function heated(probabilities: number[], kept: boolean[], temperature: number): number[] {
  if (temperature === 0) return probabilities.map((_, i) => (i === kept.indexOf(true) ? 1 : 0));
  const best = probabilities[kept.indexOf(true)] ?? 1;
  return probabilities.map((one, i) => (kept[i] ? (one / best) ** (1 / temperature) * best : 0));
}

/** Fields of a request. A seed is drawn here, so that the page knows it before the answer begins. */
export function fields(settings: Settings): Record<string, number> & { max_tokens: number; seed: number } {
  const { seed, ...rest } = settings;
  return { ...rest, seed: seed ?? crypto.getRandomValues(new Uint32Array(1))[0]! >>> 1 };
}
