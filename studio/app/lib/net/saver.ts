// Keeps turns on the server: in order, one request at a time, again after a failure, only the newest state of
// each.
import type { Turn } from "../types";

const LONGEST_PAUSE = 8_000; // milliseconds

export class Saver {
  private readonly waiting = new Map<string, { talk: string; turn: Turn }>();
  private working: Promise<void> | null = null;

  constructor(
    private readonly put: (talk: string, turn: Turn) => Promise<unknown>,
    private readonly changed: (waiting: number, failed: boolean) => void = () => undefined,
    private readonly pause: (milliseconds: number) => Promise<void> = (n) =>
      new Promise((r) => setTimeout(r, n)),
  ) {}

  /** Keep a turn. A state of it that still waits is replaced. */
  save(talk: string, turn: Turn): void {
    this.waiting.set(turn.id, { talk, turn });
    this.changed(this.waiting.size, false);
    this.working ??= this.work().finally(() => (this.working = null));
  }

  /** Wait until nothing waits. */
  async settled(): Promise<void> {
    while (this.working) await this.working;
  }

  /** Forget a turn that was deleted. */
  drop(id: string): void {
    this.waiting.delete(id);
  }

  private async work(): Promise<void> {
    for (let failures = 0; this.waiting.size > 0;) {
      const [id, one] = this.waiting.entries().next().value!;
      try {
        await this.put(one.talk, one.turn);
        failures = 0;
        if (this.waiting.get(id) === one) this.waiting.delete(id);
        this.changed(this.waiting.size, false);
      } catch (error) {
        if (lasting(error)) {
          this.waiting.delete(id); // the conversation is gone, or the server refuses it for good
        } else {
          await this.pause(Math.min(LONGEST_PAUSE, 250 * 2 ** failures++));
        }
        this.changed(this.waiting.size, true);
      }
    }
  }
}

/** True if asking again cannot help. */
function lasting(error: unknown): boolean {
  const status = (error as { status?: number }).status ?? 0;
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}
