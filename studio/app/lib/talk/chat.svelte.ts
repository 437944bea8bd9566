// The open conversation: its tree, the branch in sight, and the answer that is being written.
import { app } from "../app.svelte";
import { patch, post, remove, studio } from "../net/api";
import { conversations } from "./conversations.svelte";
import { Painter } from "../paint";
import { model, render, type Rendered } from "./prompt";
import { toKept } from "./kept";
import { DEFAULTS, fields } from "./sampling";
import { moved, type Sides } from "./sides";
import { Saver } from "../net/saver";
import { answer, type Outcome } from "../net/stream";
import { type Replay, replayed, sameSamplers } from "./replay";
import { body, chosen, textOf, Tree } from "./tree";
import type { Conversation, Mode, Settings, Token, Turn } from "../types";
import { ulid } from "./ulid";
import { t } from "../words.svelte";

const SAVE_EVERY = 2_000; // milliseconds, while an answer grows

export interface Running {
  turn: string;
  stop: AbortController;
  read: number; // tokens of the prompt
  total: number;
  lost: boolean;
}

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
  replays = $state.raw<Record<string, Replay | null>>({}); // by turn, null while one runs
  leaf = $state<string | null>(null);
  running = $state<Running | null>(null);
  waiting = $state(0); // turns that are not on the server's disk yet
  unsaved = $state(false);
  rendered = $state.raw<Rendered | null>(null); // what the model would read next
  private version = $state(0);
  private tree = new Tree();
  private readonly stored = new Map<string, number>(); // tokens of each turn that the server has
  private readonly saver = new Saver(
    async (talk, turn) => {
      const after = Math.min(this.stored.get(turn.id) ?? 0, turn.tokens.length);
      await post(studio("conversations", talk, "nodes"), toKept(turn, after));
      this.stored.set(turn.id, turn.tokens.length);
    },
    (waiting, failed) => {
      this.waiting = waiting;
      this.unsaved = failed && waiting > 0;
    },
  );
  readonly path = $derived.by(() => (this.version, this.tree.path(this.leaf)));
  readonly leaves = $derived.by(() => (this.version, this.tree.leaves()));
  readonly turns = $derived.by(() => (this.version, this.tree.all()));

  constructor(readonly mode: Mode) {}

  // ---- opening ----

  async open(id: string, leaf: string | null = null): Promise<void> {
    if (this.id === id) {
      if (leaf && this.tree.get(leaf)) this.leaf = leaf;
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
    this.tree = new Tree(talk.nodes);
    for (const turn of talk.nodes) this.stored.set(turn.id, turn.tokens.length);
    const place = leaf ?? talk.current ?? null;
    this.leaf = place && this.tree.get(place) ? place : this.tree.newest(null);
    this.version++;
  }

  reset(): void {
    this.stop();
    this.id = null;
    this.title = "";
    this.tree = new Tree();
    this.leaf = null;
    this.rendered = null;
    this.head = { ...this.head, system: null, template_args: null };
    this.version++;
  }

  get(id: string): Turn | undefined {
    return this.tree.get(id);
  }

  siblings(id: string): Turn[] {
    return this.version < 0 ? [] : this.tree.siblings(id);
  }

  pathTo(id: string): Turn[] {
    return this.tree.path(id);
  }

  newestPath(id: string): Turn[] {
    return this.tree.path(this.tree.newest(id));
  }

  forest(): Tree {
    return this.tree;
  }

  /** Show the branch that begins with this turn, down to its newest end. */
  show(id: string): void {
    this.leaf = this.tree.newest(id);
    this.place();
  }

  private place(): void {
    if (!this.id) return;
    app.stay(this.mode, this.leaf ? [this.id, this.leaf] : [this.id]);
    const { id, leaf } = this;
    this.saver
      .settled()
      .then(() => patch(studio("conversations", id), { current: leaf }))
      .catch(() => undefined);
  }

  private async ensure(title: string): Promise<string> {
    if (this.id) return this.id;
    const facts: Partial<Conversation> = { ...this.head, mode: this.mode, settings: { ...this.settings } };
    const made = await conversations.create({
      ...facts,
      title: title.trim().slice(0, 60) || t("chat.untitled"),
    });
    this.title = made.title;
    return (this.id = made.id);
  }

  /** Change model, adapter, system prompt or template arguments of this conversation. */
  async change(head: Partial<Head>): Promise<void> {
    this.head = { ...this.head, ...head };
    if (this.id) await app.tried(() => conversations.change(this.id!, head));
  }

  async keepSettings(): Promise<void> {
    if (this.id) await app.tried(() => conversations.change(this.id!, { settings: { ...this.settings } }));
  }

  async rename(title: string): Promise<void> {
    this.title = title;
    if (this.id) await app.tried(() => conversations.change(this.id!, { title }));
  }

  // ---- turns ----

  /** Add the person's text at the end, and have it answered. Without text, the last answer goes on. */
  async ask(text: string): Promise<void> {
    const last = this.leaf ? this.tree.get(this.leaf) : undefined;
    if (text === "" && last?.role === "assistant") return this.proceed(last.id);
    const role = this.mode === "chat" ? "user" : "text";
    await app.tried(async () => {
      await this.ensure(text);
      const parent = text === "" ? this.leaf : this.put({ role, text, parent: this.leaf }).id;
      await this.respond(parent);
    });
  }

  /** Ask at the ends of two branches. Each answers with its own model and adapter, and with the same seed. */
  async askBoth(text: string, sides: Sides, show: (sides: Sides) => void): Promise<void> {
    const role = this.mode === "chat" ? "user" : "text";
    await app.tried(async () => {
      await this.ensure(text);
      const [one, other] = sides;
      const first = this.put({ role, text, parent: one.leaf }).id;
      const second = one.leaf === other.leaf ? first : this.put({ role, text, parent: other.leaf }).id;
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
    const turn = this.tree.get(id);
    if (turn) await app.tried(async () => void (await this.respond(turn.parent)));
  }

  /** Go on where an answer ended. */
  async proceed(id: string): Promise<void> {
    const turn = this.tree.get(id);
    if (!turn) return;
    await app.tried(async () => {
      const prompt = turn.prompt_ids ?? (await this.prompt(turn.parent)).ids;
      const ended = turn.finish === "stop";
      const own = body(turn);
      const settings = { ...this.settings };
      // What a replay of the whole answer would not give again counts as given.
      const model = this.head.model ?? app.state?.model ?? null;
      const { adapter } = this.head;
      const other = model !== (turn.model ?? null) || adapter !== (turn.adapter ?? null);
      const kept =
        ended || other || !sameSamplers(settings, turn.settings) ? own.length : (turn.kept ?? null);
      await this.saver.settled(); // the token that ended the answer is taken back
      this.stored.set(id, Math.min(this.stored.get(id) ?? 0, own.length));
      await this.generate(
        { ...turn, tokens: own, kept, settings, model, adapter },
        prompt,
        settings,
        turn.seed ?? null,
        ended ? 1 : 0,
      );
    });
  }

  /** Write an answer once more, from the same tokens with the same seed, and compare every bit. */
  async replay(id: string): Promise<void> {
    const turn = this.tree.get(id);
    if (!turn || this.replays[id] === null) return;
    const tell = (found: Replay | null): void => {
      this.replays = { ...this.replays, [id]: found };
    };
    tell(null);
    if (!(await app.tried(async () => tell(await replayed(turn))))) {
      const { [id]: _, ...others } = this.replays;
      this.replays = others;
    }
  }

  /** Take another token at a place, and go on from there with the same seed and settings: a new branch. */
  async choose(id: string, index: number, token: number): Promise<void> {
    const turn = this.tree.get(id);
    if (!turn) return;
    const kept = chosen(turn.tokens, index, token);
    await app.tried(async () => void (await this.respond(turn.parent, turn, kept)));
  }

  /** Change a text. The old one stays as a branch; a question is answered anew. */
  async edit(id: string, text: string): Promise<void> {
    const turn = this.tree.get(id);
    if (!turn || text === turn.text) return;
    await app.tried(async () => {
      const made = this.put({ role: turn.role, text, parent: turn.parent });
      if (turn.role === "user") await this.respond(made.id);
    });
  }

  async remove(id: string): Promise<void> {
    const turn = this.tree.get(id);
    const talk = this.id;
    if (!turn || !talk) return;
    if (this.running && this.tree.path(this.leaf).some((one) => one.id === id)) this.stop();
    const leaf = this.leaf;
    await app.tried(async () => {
      await this.saver.settled();
      await remove(studio("conversations", talk, "nodes", id));
      const gone = this.tree.remove(id);
      const next = this.tree.children(turn.parent).at(-1)?.id ?? turn.parent;
      this.leaf = next === null ? null : this.tree.newest(next);
      this.version++;
      this.place();
      app.offer(t("chat.deleted"), async () => {
        await post(studio("conversations", talk, "nodes", id, "restore"));
        if (this.id !== talk) return;
        this.tree.restore(gone);
        this.leaf = leaf;
        this.version++;
        this.place();
      });
    });
  }

  async name(id: string, name: string): Promise<void> {
    const turn = this.tree.get(id);
    if (!turn || !this.id) return;
    this.tree.add({ ...turn, name: name || null });
    this.version++;
    await app.tried(() => patch(studio("conversations", this.id!, "nodes", id), { name: name || null }));
  }

  stop(): void {
    this.running?.stop.abort();
  }

  // ---- writing ----

  /** Tokens before the next answer below a turn, which `by` writes. */
  async prompt(parent: string | null, signal?: AbortSignal, by: Partial<Answering> = {}): Promise<Rendered> {
    const head = { ...this.head, ...by, mode: this.mode };
    return render(head, this.tree.path(parent), this.settings.max_tokens, signal);
  }

  private put(facts: Pick<Turn, "role" | "text" | "parent"> & Partial<Turn>): Turn {
    const turn: Turn = { id: ulid(), tokens: [], ...facts };
    this.tree.add(turn);
    this.leaf = turn.id;
    this.version++;
    this.saver.save(this.id!, turn);
    this.place();
    return turn;
  }

  /** Let `by` write an answer, else who wrote the one that it is like; returns whether it was not stopped. */
  private async respond(
    parent: string | null,
    like: Turn | null = null,
    kept: Token[] = [],
    by: Answering = like ?? this.head,
  ): Promise<boolean> {
    this.stop();
    const { model = null, adapter = null } = by;
    const prompt = like?.prompt_ids ?? (await this.prompt(parent, undefined, { model, adapter })).ids;
    const settings = { ...(like?.settings ?? this.settings) };
    const turn: Turn = {
      id: ulid(),
      parent,
      role: "assistant",
      text: textOf(kept),
      tokens: kept,
      settings,
      model: model ?? app.state?.model ?? null,
      adapter,
      kept: kept.length || null,
    };
    by.begun?.(turn.id);
    return this.generate(turn, prompt, settings, by.seed ?? like?.seed ?? settings.seed);
  }

  private async generate(
    first: Turn,
    prompt: number[],
    settings: Settings,
    seed: number | null,
    least = 0,
  ): Promise<boolean> {
    const talk = this.id!;
    const tokens = [...first.tokens];
    const chosenFields = fields({ ...settings, seed });
    const start: Turn = { ...first, prompt_ids: prompt, seed: chosenFields.seed, finish: null };
    const running: Running = { turn: first.id, stop: new AbortController(), read: 0, total: 0, lost: false };
    this.running = running;
    const state = (): Turn => ({ ...start, tokens: tokens.slice(), text: textOf(tokens) });
    const show = (turn: Turn): void => {
      if (this.id !== talk) return;
      this.tree.add(turn);
      this.version++;
    };
    const painter = new Painter(() => show(state()));
    const seen = (): void => painter.flush();
    document.addEventListener("visibilitychange", seen);
    show(state());
    this.leaf = first.id;
    this.place();
    this.saver.save(talk, state());
    const saving = setInterval(() => this.saver.save(talk, state()), SAVE_EVERY);
    let outcome: Outcome | null = null;
    try {
      const ids = [...prompt, ...tokens.map((token) => token.id)];
      const by = { model: first.model ?? this.head.model, adapter: first.adapter ?? null };
      const request = { ...model(by), ...chosenFields, prompt: ids, min_tokens: least };
      outcome = await answer(request, this.listener(running, tokens, painter), running.stop.signal);
    } finally {
      clearInterval(saving);
      document.removeEventListener("visibilitychange", seen);
      painter.flush();
      const { finish = null, cached = null, rate = null } = outcome ?? {};
      // a token that could not end the answer
      const forced = least > 0 && tokens.length > first.tokens.length;
      const kept = forced ? first.tokens.length + 1 : start.kept;
      const done: Turn = { ...state(), kept, finish: finish ?? "cancelled", cached, rate };
      show(done);
      this.saver.save(talk, done);
      if (this.running?.turn === running.turn) this.running = null;
      app.say(t("chat.written"));
    }
    void conversations.load();
    return !running.stop.signal.aborted;
  }

  private listener(running: Running, tokens: Token[], painter: Painter) {
    const update = (facts: Partial<Running>): void => {
      if (this.running?.turn === running.turn) Object.assign(this.running, facts);
    };
    return {
      tokens: (more: Token[]) => {
        tokens.push(...more);
        painter.ask();
      },
      progress: (read: number, total: number) => update({ read, total }),
      lost: () => update({ lost: true }),
      back: () => update({ lost: false }),
    };
  }
}
