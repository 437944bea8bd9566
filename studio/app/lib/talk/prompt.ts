// The tokens that the model reads before an answer.
import { post } from "../net/api";
import { body } from "./tree";
import type { Conversation, Turn } from "../types";

export interface Rendered {
  ids: number[];
  texts: string[];
  window: number;
  fits: boolean;
  dropped: number; // oldest turns that were left out since the window is full
}

interface Render {
  prompt_token_ids: number[];
  token_strs: string[];
  max_model_len: number;
  fits: boolean;
}

interface Tokenized {
  tokens: number[];
  token_strs: string[];
  max_model_len: number;
}

type Head = Pick<Conversation, "mode" | "system" | "template_args" | "model" | "adapter">;

/** Render a path of turns as the prompt of the next answer, which shall have room for `room` tokens. */
export async function render(
  talk: Head,
  path: Turn[],
  room: number,
  signal?: AbortSignal,
): Promise<Rendered> {
  return talk.mode === "complete" ? continued(talk, path, room, signal) : chat(talk, path, room, signal);
}

export interface Message {
  role: string;
  content: string;
}

export function messages(talk: Pick<Conversation, "system">, path: Turn[]): Message[] {
  const turns = path
    .filter((turn) => turn.role !== "system")
    .map(({ role, text }) => ({ role, content: text }));
  const system = talk.system ? [{ role: "system", content: talk.system }] : [];
  return [...system, ...turns];
}

async function chat(talk: Head, path: Turn[], room: number, signal?: AbortSignal): Promise<Rendered> {
  for (let dropped = 0; ;) {
    const rest = path.slice(dropped);
    const answer = await post<Render>(
      "/v1/chat/completions/render",
      {
        messages: messages(talk, rest),
        ...model(talk),
        ...(talk.template_args ? { chat_template_kwargs: talk.template_args } : {}),
      },
      signal,
    );
    const most = answer.max_model_len - Math.min(room, answer.max_model_len / 4);
    const over = answer.prompt_token_ids.length - most;
    if (over <= 0 || rest.length <= 2) {
      const { prompt_token_ids: ids, token_strs: texts, max_model_len: window } = answer;
      return { ids, texts, window, fits: ids.length < window, dropped };
    }
    const guess = Math.floor(((over / answer.prompt_token_ids.length) * rest.length) / 2);
    // questions with their answers
    dropped += 2 * Math.min(Math.max(1, guess), Math.floor((rest.length - 1) / 2));
  }
}

async function continued(talk: Head, path: Turn[], room: number, signal?: AbortSignal): Promise<Rendered> {
  const ids: number[] = [];
  const texts: string[] = [];
  let window = 0;
  for (const [i, turn] of path.entries()) {
    if (turn.tokens.length > 0) {
      ids.push(...body(turn).map((token) => token.id));
      texts.push(...body(turn).map((token) => token.text));
      continue;
    }
    if (turn.text === "") continue;
    const request = {
      prompt: turn.text,
      add_special_tokens: i === 0,
      parse_special: false,
      return_token_strs: true,
    };
    const answer = await post<Tokenized>("/tokenize", { ...request, ...model(talk) }, signal);
    ids.push(...answer.tokens);
    texts.push(...answer.token_strs);
    window = answer.max_model_len;
  }
  return { ids, texts, window, fits: window === 0 || ids.length + Math.min(room, 1) <= window, dropped: 0 };
}

/** Fields that choose model and adapter. */
export function model(talk: Pick<Conversation, "model" | "adapter">): Record<string, unknown> {
  return {
    ...(talk.model ? { model: talk.model } : {}),
    ...(talk.adapter ? { adapters: [{ name: talk.adapter, scale: 1 }] } : {}),
  };
}
