// The open conversation: what is asked in it, and who answers.
import { app } from "../app.svelte";
import { patch, post, remove, studio } from "../net/api";
import { ulid } from "../net/ulid";
import { DEFAULTS, fields } from "../tokens/sampling";
import type { Mode, Settings, Token, Turn } from "../types";
import { t } from "../words.svelte";
import { Branches } from "./branches.svelte";
import { conversations } from "./conversations.svelte";
import { Keeping } from "./keeping.svelte";
import { render, type Rendered } from "./prompt";
import { Replays, sameSamplers } from "./replay.svelte";
import { moved, type Sides } from "./sides";
import { body, chosen, textOf } from "./tree";
import { type Begun, Writing } from "./writing.svelte";

export interface Head {
  model: string | null;
  adapter: string | null;
  system: string | null;
  template_args: Record<string, unknown> | null;
}

/** Who writes an answer; `begun` is told the id of its turn. */
interface Answering {
  model?: string | null;
  adapter?: string | null;
  seed?: number | null;
  begun?: (turn: string) => void;
}

export class Chat {
  id = $state<string | null>(null);
  title = $state("");
  head = $state.raw<Head>({ model: null, adapter: null, system: null, template_args: null });
  settings = $state<Settings>({ ...DEFAULTS });
  rendered = $state.raw<Rendered | null>(null); // what the model would read next
  readonly branches = new Branches();
  readonly keeping = new Keeping();
  readonly replays = new Replays();
  private readonly writing = new Writing();

  constructor(readonly mode: Mode) {}

  /** The answer that is being written. */
  get running() {
    return this.writing.running;
  }

  // ---- the conversation ----

  async open(id: string, leaf: string | null = null): Promise<void> {
    if (this.id === id) {
      if (leaf && this.branches.get(leaf)) this.branches.leaf = leaf;
      return;
    }
    this.stop();
    const talk = await conversations.open(id);
    this.reset();
    this.id = talk.id;
    this.title = talk.title;
    const { model, adapter, system, template_args } = talk;
    this.head = { model, adapter, system, template_args };
    this.settings = { ...DEFAULTS, ...talk.settings };
    this.keeping.known(talk.nodes);
    this.branches.fill(talk.nodes, leaf ?? talk.current ?? null);
  }

  reset(): void {
    this.stop();
    this.id = null;
    this.title = "";
    this.branches.fill([], null);
    this.rendered = null;
    this.head = { ...this.head, system: null, template_args: null };
  }

  /** Show the branch that begins with this turn, down to its newest end. */
  show(id: string): void {
    this.branches.show(id);
    this.place();
  }

  /** Change model, adapter, system prompt or template arguments of this conversation. */
  async change(head: Partial<Head>): Promise<void> {
    this.head = { ...this.head, ...head };
    await this.keep(head);
  }

  async keepSettings(): Promise<void> {
    await this.keep({ settings: { ...this.settings } });
  }

  async rename(title: string): Promise<void> {
    this.title = title;
    await this.keep({ title });
  }

  private async keep(facts: Parameters<typeof conversations.change>[1]): Promise<void> {
    const { id } = this;
    if (!id) return;
    await this.keeping.settled();
    await app.tried(() => conversations.change(id, facts));
  }

  /** Begin a conversation with the person's first text, unless there is one; returns its id. */
  private begin(text: string): string {
    if (this.id) return this.id;
    this.id = ulid();
    this.title = text.trim().slice(0, 60) || t("chat.untitled");
    const { id, title, mode, settings } = this;
    this.keeping.begin({ id, title, mode, settings: { ...settings }, ...this.head });
    return id;
  }

  private place(): void {
    if (!this.id) return;
    const { leaf } = this.branches;
    app.stay(this.mode, leaf ? [this.id, leaf] : [this.id]);
    this.keeping.place(this.id, leaf);
  }

  // ---- turns ----

  /** Add the person's text at the end, and have it answered. Without text, the last answer goes on. */
  async ask(text: string): Promise<void> {
    const { leaf } = this.branches;
    const last = leaf ? this.branches.get(leaf) : undefined;
    if (text === "" && last?.role === "assistant") return this.proceed(last.id);
    await app.tried(async () => void (await this.respond(text === "" ? leaf : this.put(text, leaf))));
  }

  /** Ask at the ends of two branches. Each answers with its own model and adapter, and with the same seed. */
  async askBoth(text: string, sides: Sides, show: (sides: Sides) => void): Promise<void> {
    await app.tried(async () => {
      const [one, other] = sides;
      const first = this.put(text, one.leaf);
      const second = one.leaf === other.leaf ? first : this.put(text, other.leaf);
      let now: Sides = [
        { ...one, leaf: first },
        { ...other, leaf: second },
      ];
      show(now);
      const seed = fields(this.settings).seed;
      for (const at of [0, 1] as const) {
        const by = { ...now[at], seed, begun: (leaf: string) => show((now = moved(now, at, leaf))) };
        if (!(await this.respond(now[at].leaf, null, [], by))) return;
      }
    });
  }

  /** Write another answer in the place of this one. */
  async regenerate(id: string): Promise<void> {
    const turn = this.branches.get(id);
    if (turn) await app.tried(async () => void (await this.respond(turn.parent)));
  }

  /** Go on where an answer ended. */
  async proceed(id: string): Promise<void> {
    const turn = this.branches.get(id);
    const talk = this.id;
    if (!turn || !talk) return;
    await app.tried(async () => {
      const prompt_ids = turn.prompt_ids ?? (await this.prompt(turn.parent)).ids;
      const ended = turn.finish === "stop";
      const tokens = body(turn);
      const settings = { ...this.settings };
      const { seed } = fields({ ...settings, seed: turn.seed ?? null });
      // What a replay of the whole answer would not give again counts as given.
      const model = this.head.model ?? app.state?.model ?? null;
      const { adapter } = this.head;
      const other = model !== (turn.model ?? null) || adapter !== (turn.adapter ?? null);
      const given = ended || other || !sameSamplers(settings, turn.settings);
      const kept = given ? tokens.length : (turn.kept ?? null);
      await this.keeping.shorten(id, tokens.length); // the token that ended the answer is taken back
      const start = { ...turn, tokens, kept, settings, seed, model, adapter, prompt_ids };
      await this.write(talk, start, ended ? 1 : 0);
    });
  }

  /** Take another token at a place, and go on from there with the same seed and settings: a new branch. */
  async choose(id: string, index: number, token: number): Promise<void> {
    const turn = this.branches.get(id);
    if (!turn) return;
    const kept = chosen(turn.tokens, index, token);
    await app.tried(async () => void (await this.respond(turn.parent, turn, kept)));
  }

  /** Change a text. The old one stays as a branch; a question is answered anew. */
  async edit(id: string, text: string): Promise<void> {
    const turn = this.branches.get(id);
    if (!turn || text === turn.text) return;
    await app.tried(async () => {
      const made = this.put(text, turn.parent, turn.role);
      if (turn.role === "user") await this.respond(made);
    });
  }

  async remove(id: string): Promise<void> {
    const turn = this.branches.get(id);
    const talk = this.id;
    if (!turn || !talk) return;
    if (this.running && this.branches.path.some((one) => one.id === id)) this.stop();
    const { leaf } = this.branches;
    await app.tried(async () => {
      await this.keeping.settled();
      await remove(studio("conversations", talk, "nodes", id));
      const gone = this.branches.remove(turn);
      this.place();
      app.offer(t("chat.deleted"), async () => {
        await post(studio("conversations", talk, "nodes", id, "restore"));
        if (this.id !== talk) return;
        this.branches.restore(gone, leaf);
        this.place();
      });
    });
  }

  /** Give the branch that ends with a turn a name. */
  async name(id: string, name: string): Promise<void> {
    const turn = this.branches.get(id);
    const talk = this.id;
    if (!turn || !talk) return;
    this.branches.put({ ...turn, name: name || null });
    await this.keeping.settled();
    await app.tried(() => patch(studio("conversations", talk, "nodes", id), { name: name || null }));
  }

  stop(): void {
    this.writing.stop();
  }

  // ---- answers ----

  /** Tokens before the next answer below a turn, which `by` writes. */
  async prompt(parent: string | null, signal?: AbortSignal, by: Partial<Answering> = {}): Promise<Rendered> {
    const head = { ...this.head, ...by, mode: this.mode };
    return render(head, this.branches.pathTo(parent), this.settings.max_tokens, signal);
  }

  /** Add a text, the person's own unless `role` says otherwise; returns the id of its turn. */
  private put(text: string, parent: string | null, role?: Turn["role"]): string {
    const talk = this.begin(text);
    const own = this.mode === "chat" ? "user" : "text";
    const turn: Turn = { id: ulid(), parent, role: role ?? own, text, tokens: [] };
    this.branches.put(turn);
    this.branches.leaf = turn.id;
    this.keeping.turn(talk, turn);
    this.place();
    return turn.id;
  }

  /** Let `by` write an answer, else who wrote the one that it is like; returns whether it was not stopped. */
  private async respond(
    parent: string | null,
    like: Turn | null = null,
    tokens: Token[] = [],
    by: Answering = like ?? this.head,
  ): Promise<boolean> {
    this.stop();
    const talk = this.begin("");
    const { model = null, adapter = null } = by;
    const prompt_ids = like?.prompt_ids ?? (await this.prompt(parent, undefined, { model, adapter })).ids;
    if (this.id !== talk) return false; // the person went to another conversation
    const settings = { ...(like?.settings ?? this.settings) };
    const { seed } = fields({ ...settings, seed: by.seed ?? like?.seed ?? settings.seed });
    const answer: Begun = {
      id: ulid(),
      parent,
      role: "assistant",
      text: textOf(tokens),
      tokens,
      settings,
      seed,
      model: model ?? app.state?.model ?? null,
      adapter,
      kept: tokens.length || null,
      prompt_ids,
    };
    by.begun?.(answer.id);
    return this.write(talk, answer);
  }

  private async write(talk: string, start: Begun, least = 0): Promise<boolean> {
    let seen = false;
    const show = (turn: Turn): void => {
      if (this.id !== talk) return;
      this.branches.put(turn);
      if (seen) return;
      seen = true;
      this.branches.leaf = turn.id;
      this.place();
    };
    const save = (turn: Turn): void => this.keeping.turn(talk, turn);
    try {
      return await this.writing.write(start, least, { show, save });
    } finally {
      app.say(t("chat.written"));
      void conversations.load();
    }
  }
}
