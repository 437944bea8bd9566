// Sends what the server shall keep: in order, one request at a time, again after a failure, and of each thing
// only the newest state.

const LONGEST_PAUSE = 8_000; // milliseconds

/** Sends one state of a thing. */
export type Put = () => Promise<unknown>;

export class Saver {
  private readonly waiting = new Map<string, Put>();
  private working: Promise<void> | null = null;

  constructor(
    private readonly told: (waiting: number, failure: Error | null) => void = () => undefined,
    private readonly pause: (milliseconds: number) => Promise<void> = (n) =>
      new Promise((r) => setTimeout(r, n)),
  ) {}

  /** Send a thing. A state of it that still waits is replaced, in its place. */
  save(name: string, put: Put): void {
    this.waiting.set(name, put);
    this.told(this.waiting.size, null);
    this.working ??= this.work().finally(() => (this.working = null));
  }

  /** Send a thing behind all that waits. */
  saveLast(name: string, put: Put): void {
    this.waiting.delete(name);
    this.save(name, put);
  }

  /** Wait until nothing waits. */
  async settled(): Promise<void> {
    while (this.working) await this.working;
  }

  private async work(): Promise<void> {
    for (let failures = 0; this.waiting.size > 0;) {
      const [name, put] = this.waiting.entries().next().value!;
      try {
        await put();
        failures = 0;
        if (this.waiting.get(name) === put) this.waiting.delete(name);
        this.told(this.waiting.size, null);
      } catch (error) {
        if (lasting(error)) this.waiting.delete(name);
        else await this.pause(Math.min(LONGEST_PAUSE, 250 * 2 ** failures++));
        this.told(this.waiting.size, error as Error);
      }
    }
  }
}

/** True if asking again cannot help: the conversation is gone, or the server refuses it for good. */
export function lasting(error: unknown): boolean {
  const status = (error as { status?: number }).status ?? 0;
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}
