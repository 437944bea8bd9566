// Records that the page and the server send each other.

/** A token that the model wrote, with the distribution it was taken from. */
export interface Token {
  id: number;
  text: string; // joined, the texts of an answer's tokens are the answer
  logprob: number;
  entropy: number; // nats
  top: [id: number, text: string, logprob: number][];
  piece?: string; // the token's own text, where it is no whole character or ends the answer
}

export interface Settings {
  temperature: number;
  top_k: number;
  top_p: number;
  min_p: number;
  repetition_penalty: number;
  max_tokens: number;
  seed: number | null; // null draws one for each answer
}

export type Role = "system" | "user" | "assistant" | "text";

/** A turn of a conversation. Turns with the same parent are branches of each other. */
export interface Turn {
  id: string;
  parent: string | null;
  role: Role;
  text: string;
  tokens: Token[];
  settings?: Settings | null;
  seed?: number | null;
  finish?: string | null;
  name?: string | null;
  prompt_ids?: number[] | null; // what the model read before the answer
  cached?: number | null;
  rate?: number | null; // tokens a second
  model?: string | null;
  adapter?: string | null;
  kept?: number | null; // tokens at the beginning that were kept or chosen by hand, not generated
}

export type Mode = "chat" | "complete";

export interface ConversationFacts {
  id: string;
  title: string;
  model: string | null;
  adapter: string | null;
  mode: Mode;
  updated: string | number;
  tokens: number;
}

export interface Conversation extends ConversationFacts {
  system: string | null;
  template_args: Record<string, unknown> | null;
  settings: Partial<Settings> | null;
  current?: string | null; // the end of the branch in sight
  nodes: Turn[];
}

export interface ModelFacts {
  id: string;
  layers?: number;
  heads?: number;
  window?: number;
  chat?: boolean;
  adapters?: string[];
  loaded?: boolean;
  opened_as?: string; // under which the command line opens it
  opened_with?: Record<string, string | number>; // precision, kv, context, if they are not the usual ones
  adapter_places?: Record<string, string>;
}

/** Connections that the server opened to one machine, or that pip opened, for one model. */
export interface Opening {
  host: string | null; // null: pip chose it
  model: string | null;
  count: number;
}

export interface State {
  version: string;
  model: string;
  models: ModelFacts[];
  adapters: string[];
  missing: string[]; // a line for each adapter that could not be loaded again
  tune: boolean;
  connections: { outside: number; opened: Opening[] }; // the most recent first
  machine: { memory: number; threads: number };
}
