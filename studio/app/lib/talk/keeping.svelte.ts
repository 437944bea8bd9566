// Keeps the open conversation on the server's disk, beside the answers: nothing that the model is asked waits
// for it.
import { app } from "../app.svelte";
import { patch, post, studio } from "../net/api";
import { lasting, Saver } from "../net/saver";
import { conversations } from "./conversations.svelte";
import { toKept } from "./kept";
import type { Conversation, Turn } from "../types";

export class Keeping {
  unsaved = $state(false); // something waits, and the last try has failed
  private readonly stored = new Map<string, number>(); // tokens of each turn that the server has
  private readonly saver = new Saver((waiting, failure) => {
    this.unsaved = failure !== null && waiting > 0;
    if (failure && lasting(failure)) app.failure = failure.message;
  });

  /** Make a conversation under the name that the page gave it. */
  begin(facts: Partial<Conversation> & { id: string }): void {
    this.saver.save(facts.id, () => conversations.create(facts));
  }

  /** Keep a turn; of one that grows, the tokens that are new. */
  turn(talk: string, turn: Turn): void {
    this.saver.save(turn.id, async () => {
      const after = Math.min(this.stored.get(turn.id) ?? 0, turn.tokens.length);
      await post(studio("conversations", talk, "nodes"), toKept(turn, after));
      this.stored.set(turn.id, turn.tokens.length);
    });
  }

  /** Keep which branch is in sight. */
  place(talk: string, leaf: string | null): void {
    this.saver.saveLast(`place of ${talk}`, () => patch(studio("conversations", talk), { current: leaf }));
  }

  /** Take note of turns that the server gave, with all their tokens. */
  known(turns: Turn[]): void {
    for (const turn of turns) this.stored.set(turn.id, turn.tokens.length);
  }

  /** Take tokens back: only the first `tokens` of a turn stay. */
  async shorten(turn: string, tokens: number): Promise<void> {
    await this.saver.settled();
    this.stored.set(turn, Math.min(this.stored.get(turn) ?? 0, tokens));
  }

  /** Wait until all is on the disk. */
  async settled(): Promise<void> {
    await this.saver.settled();
  }
}
