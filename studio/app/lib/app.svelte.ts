// What every screen shares: where the page is, what the server has, the last message.
import { get, studio } from "./net/api";
import { format, parse, type Place, type Screen } from "./router";
import type { ModelFacts, State } from "./types";

export interface Undo {
  text: string;
  run: () => void | Promise<void>;
}

/** A model as /v1/models describes it. */
interface RawModel extends Omit<ModelFacts, "adapters"> {
  max_model_len?: number;
  capabilities?: { chat?: boolean };
  status?: { value: string };
  adapters?: (string | { id: string })[];
  meta?: { layers?: number; heads?: number };
}

function facts(model: RawModel): ModelFacts {
  return {
    ...model.meta,
    ...model,
    window: model.window ?? model.max_model_len ?? 0,
    chat: model.chat ?? model.capabilities?.chat ?? true,
    adapters: (model.adapters ?? []).map((one) => (typeof one === "string" ? one : one.id)),
    loaded: model.loaded ?? model.status?.value === "loaded",
  };
}

class App {
  place = $state.raw<Place>(parse(location.hash));
  state = $state.raw<State | null>(null);
  failure = $state<string | null>(null); // of the last thing that was asked for
  undo = $state.raw<Undo | null>(null);
  tour = $state<number | null>(null); // the step of the tour, while it runs
  said = $state(""); // read aloud by screen readers
  private timer = 0;

  start(): void {
    addEventListener("hashchange", () => {
      this.place = parse(location.hash);
      this.failure = null;
    });
    void this.refresh();
  }

  async refresh(): Promise<void> {
    await this.tried(async () => {
      const state = await get<State & { models: RawModel[] }>(studio("state"));
      this.state = { ...state, models: state.models.map(facts) };
    });
  }

  /** Do something, and show the person what went wrong. */
  async tried(run: () => Promise<void>): Promise<boolean> {
    try {
      await run();
      return true;
    } catch (error) {
      if ((error as Error).name !== "AbortError") this.failure = (error as Error).message;
      return false;
    }
  }

  go(screen: Screen, parts: string[] = [], query: Record<string, string> = {}): void {
    const hash = format(screen, parts, query);
    if (location.hash !== hash) location.hash = hash;
  }

  /** Change the address without an entry in the browser's history. */
  stay(screen: Screen, parts: string[] = [], query: Record<string, string> = {}): void {
    history.replaceState(null, "", format(screen, parts, query));
    this.place = parse(location.hash);
  }

  /** Offer to undo something for ten seconds. */
  offer(text: string, run: Undo["run"]): void {
    clearTimeout(this.timer);
    this.undo = { text, run };
    this.said = text;
    this.timer = window.setTimeout(() => (this.undo = null), 10_000);
  }

  async undone(): Promise<void> {
    const run = this.undo?.run;
    this.undo = null;
    if (run) await this.tried(async () => run());
  }

  say(text: string): void {
    this.said = text;
  }
}

export const app = new App();
