// Limits how often the page paints while an answer streams in, so that the model keeps the processor.

const INTERVAL = 50; // milliseconds: at most 20 times a second

export interface Clock {
  now(): number;
  later(run: () => void, milliseconds: number): unknown;
  cancel(timer: unknown): void;
  hidden(): boolean;
}

const BROWSER: Clock = {
  now: () => performance.now(),
  later: (run, milliseconds) => setTimeout(run, milliseconds),
  cancel: (timer) => clearTimeout(timer as number),
  hidden: () => document.hidden,
};

/** Calls `paint` soon after `ask`, at most once in 50 ms, and not at all while nobody looks at the page. */
export class Painter {
  private last = -Infinity;
  private timer: unknown = null;
  private wanted = false;

  constructor(
    private readonly paint: () => void,
    private readonly clock: Clock = BROWSER,
  ) {}

  ask(): void {
    this.wanted = true;
    if (this.timer !== null || this.clock.hidden()) return;
    const wait = Math.max(0, this.last + INTERVAL - this.clock.now());
    this.timer = this.clock.later(() => this.flush(), wait);
  }

  /** Paint now if something changed: at the end, and when the page is seen again. */
  flush(): void {
    if (this.timer !== null) this.clock.cancel(this.timer);
    this.timer = null;
    if (!this.wanted) return;
    this.wanted = false;
    this.last = this.clock.now();
    this.paint();
  }
}
