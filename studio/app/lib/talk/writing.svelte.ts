// The answer that is being written: it grows, is shown and saved on the way, and can be stopped.
import { answer, type Listener, type Outcome } from "../net/stream";
import { Painter } from "../paint";
import { fields } from "../tokens/sampling";
import { model } from "./prompt";
import { textOf } from "./tree";
import type { Settings, Token, Turn } from "../types";

const SAVE_EVERY = 2_000; // milliseconds, while an answer grows

export interface Running {
  turn: string;
  stop: AbortController;
  read: number; // tokens of the prompt
  total: number;
  lost: boolean;
}

/** A turn that shall grow: what the model reads, and how the tokens are drawn. */
export interface Begun extends Turn {
  prompt_ids: number[];
  settings: Settings;
  seed: number;
}

/** Where the states of a growing answer go. */
export interface Growth {
  show(turn: Turn): void;
  save(turn: Turn): void;
}

export class Writing {
  running = $state<Running | null>(null);

  stop(): void {
    this.running?.stop.abort();
  }

  /** Write on behind the tokens of a turn, at least `least` more; returns whether it was not stopped. */
  async write(start: Begun, least: number, to: Growth): Promise<boolean> {
    const tokens = [...start.tokens];
    const state = (): Turn => ({ ...start, finish: null, tokens: tokens.slice(), text: textOf(tokens) });
    const running: Running = { turn: start.id, stop: new AbortController(), read: 0, total: 0, lost: false };
    this.running = running;
    const painter = new Painter(() => to.show(state()));
    const seen = (): void => painter.flush();
    document.addEventListener("visibilitychange", seen);
    const saving = setInterval(() => to.save(state()), SAVE_EVERY);
    let outcome: Outcome | null = null;
    try {
      const writing = answer(
        request(start, least),
        this.listener(running, tokens, painter),
        running.stop.signal,
      );
      to.show(state());
      to.save(state());
      outcome = await writing;
    } finally {
      clearInterval(saving);
      document.removeEventListener("visibilitychange", seen);
      painter.flush();
      const { finish = null, cached = null, rate = null } = outcome ?? {};
      // a token that could not end the answer counts as given
      const forced = least > 0 && tokens.length > start.tokens.length;
      const kept = forced ? start.tokens.length + 1 : (start.kept ?? null);
      const done: Turn = { ...state(), kept, finish: finish ?? "cancelled", cached, rate };
      to.show(done);
      to.save(done);
      if (this.running?.turn === running.turn) this.running = null;
    }
    return !running.stop.signal.aborted;
  }

  private listener(running: Running, tokens: Token[], painter: Painter): Listener {
    const update = (facts: Partial<Running>): void => {
      if (this.running?.turn === running.turn) Object.assign(this.running, facts);
    };
    return {
      tokens: (more) => {
        tokens.push(...more);
        painter.ask();
      },
      progress: (read, total) => update({ read, total }),
      lost: () => update({ lost: true }),
      back: () => update({ lost: false }),
    };
  }
}

function request(turn: Begun, least: number) {
  const by = model({ model: turn.model ?? null, adapter: turn.adapter ?? null });
  const ids = [...turn.prompt_ids, ...turn.tokens.map((token) => token.id)];
  return { ...by, ...fields({ ...turn.settings, seed: turn.seed }), prompt: ids, min_tokens: least };
}
