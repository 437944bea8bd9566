// The two conversations that the page holds open, chat and completion, and how each is shown.
import type { Mode, Turn } from "../types";
import { Chat } from "./chat.svelte";
import { Opened } from "../tokens/opened.svelte";
import { model } from "./prompt";
import { sideOf, type Sides } from "./sides";
import type { Colouring } from "../tokens/shade";
import { body } from "./tree";

export type Panel = "settings" | "branches" | "prompt" | "token";

export class View {
  readonly chat: Chat;
  readonly opened = new Opened();
  history = $state(innerWidth > 1100);
  panel = $state<Panel | null>(null);
  colouring = $state<Colouring>("none");
  formatted = $state(false);
  follows = $state(true); // the end of the conversation stays in sight
  compared = $state.raw<Sides | null>(null);

  constructor(mode: Mode) {
    this.chat = new Chat(mode);
    const narrow = matchMedia("(max-width: 60rem)"); // while another screen is in sight, too
    narrow.addEventListener("change", () => (this.history = !narrow.matches));
  }

  toggle(panel: Panel): void {
    this.panel = this.panel === panel ? null : panel;
    if (this.panel && innerWidth <= 960) this.history = false;
  }

  /** Show the newest branches through two turns side by side. */
  compare(one: string, other: string): void {
    const [left, right] = [one, other].map((id) => sideOf(this.chat.branches.newestPath(id), this.chat.head));
    this.compared = [left!, right!];
    if (innerWidth <= 960) this.panel = null;
  }

  close(): void {
    this.panel = null;
    this.opened.close();
    if (innerWidth <= 960) this.history = false;
  }

  /** Open a token of an answer. */
  async open(turn: Turn, index: number): Promise<void> {
    const token = turn.tokens[index];
    if (!token) return;
    this.panel = "token";
    const prompt = turn.prompt_ids ?? (await this.chat.prompt(turn.parent)).ids;
    const before = turn.tokens.slice(0, index + 1);
    const ids = [...prompt, ...before.map((one) => one.id)];
    const texts = await this.texts(turn, prompt.length);
    const where = { ids, texts: [...texts, ...before.map((one) => one.text || one.piece || "")] };
    const place = { ...where, token, turn: turn.id, index, seed: turn.seed ?? null };
    await this.opened.open(place, this.model(turn));
  }

  /** Open a token of the prompt. */
  async openPrompt(ids: number[], texts: string[], index: number): Promise<void> {
    this.panel = "token";
    const place = { ids: ids.slice(0, index + 1), texts: texts.slice(0, index + 1), token: null };
    await this.opened.open({ ...place, turn: null, index, seed: null }, model(this.chat.head));
  }

  /** An answer is looked at in the model and adapter that wrote it. */
  private model(turn: Turn): Record<string, unknown> {
    return model({ model: turn.model ?? this.chat.head.model, adapter: turn.adapter ?? null });
  }

  /** Texts of the prompt's tokens, as the rendering of today gives them; none if it has changed. */
  private async texts(turn: Turn, length: number): Promise<string[]> {
    const { texts } = await this.chat.prompt(turn.parent);
    return texts.length === length ? texts : Array.from({ length }, () => "·");
  }
}

export const chats: Record<Mode, View> = { chat: new View("chat"), complete: new View("complete") };

/** Tokens before the next one at the end of an answer. */
export function idsAfter(turn: Turn): number[] {
  return [...(turn.prompt_ids ?? []), ...body(turn).map((token) => token.id)];
}
