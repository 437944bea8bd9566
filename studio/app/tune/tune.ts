// Training runs: files, plans, and the events of a run.
import type { Key } from "../lib/words.svelte";
import { get, post, remove, send, studio } from "../lib/net/api";
import { events } from "../lib/net/sse";

export interface DataFile {
  name: string;
  size: number;
}

/** What a plan depends on. */
export interface Wanted {
  files: string[];
  model: string;
  method: string;
  minutes: number;
}

/** What a run is asked for. */
export interface Asked extends Wanted {
  name: string;
  prompts: string[];
  lens: boolean;
}

export interface MaskedToken {
  token_text: string;
  state: "trained" | "ignored" | "end" | "cut";
}

export interface Example {
  source: string;
  left_out: number;
  tokens: MaskedToken[];
}

export interface Plan {
  data: {
    format: string;
    good: number;
    bad_count: number;
    documents: number;
    tokens: number;
    trained_tokens: number;
    notes: string[];
    warnings: string[];
  };
  examples: Example[];
  plan: Cost | null; // null without PyTorch
  said: string[];
}

export interface Cost {
  steps: number;
  epochs: number;
  seconds: number;
  memory: number;
  free_memory: number;
  fits: boolean;
  advice: string[];
}

export type RunState = "running" | "paused" | "finished" | "failed" | "cancelled";

/** Why a run has ended: its steps are done, its minutes are up, it was told to, or it got no better. */
export type Ended = "steps" | "clock" | "stopped" | "no better";

export interface Run {
  id: string;
  created: number; // seconds since 1970
  name: string; // of the run and of its adapter
  files: string[];
  model: string;
  method?: string;
  minutes?: number;
  prompts?: string[];
  lens?: boolean;
  out: string; // the folder of its result
  state: RunState;
  ended: Ended | null;
  error: string | null;
  adapter: boolean; // it has written one
  report: boolean;
  command: string;
}

/** Words for how a run stands. One whose minutes are up can go on like one that was paused. */
export function standing({ state, ended }: Pick<Run, "state" | "ended">): Key {
  return state === "paused" && ended === "clock" ? "tune.run.timeUp" : `tune.run.${state}`;
}

/** An event of a run, as the server has it from the run's events.jsonl, what it printed, or its state. */
export interface TuneEvent {
  event: string;
  number?: number;
  step?: number;
  loss?: number;
  prompt?: string;
  text?: string;
  blocks?: Guess[][]; // for each block the likeliest tokens
  first_step?: number;
  left?: number;
  steps?: number;
  tokens_per_second?: number;
  state?: RunState;
  reason?: Ended;
  minutes?: number | null;
}

export type Guess = [text: string, probability: number];

/** The lens at the end of a prompt after some steps. */
export interface LensColumn {
  step: number;
  blocks: Guess[][];
}

/** What `pophood export` says of a file that it has read back. */
export interface Exported {
  place: string;
  receipt: {
    format: string;
    type: string;
    files: Record<string, { bytes: number; sha256: string }>;
    proof: Proof | null;
    notes: string[];
  };
}

export interface Proof {
  tensors: number;
  tokens: number;
  bits_equal: boolean;
  kl: number;
  bound: number;
  same_top: number;
  greedy: number;
  greedy_of: number;
}

export const METHODS = ["lora", "last", "full"] as const;

export async function files(): Promise<DataFile[]> {
  return (await get<{ files: DataFile[] }>(studio("files"))).files;
}

export async function upload(file: File): Promise<DataFile> {
  const path = `${studio("files")}?name=${encodeURIComponent(file.name)}`;
  const headers = { "Content-Type": "application/octet-stream" };
  return (await (await send(path, { method: "POST", headers, body: file })).json()) as DataFile;
}

export const forget = (name: string): Promise<void> => remove(studio("files", name));
export const discard = (run: string): Promise<void> => remove(studio("tune", run));
export const write = (run: string, to: string, type: string): Promise<Exported> =>
  post<Exported>(studio("tune", run, "export"), { to, ...(type ? { type } : {}) });
export const plan = (wanted: Wanted, signal: AbortSignal): Promise<Plan> =>
  post<Plan>(studio("tune", "plan"), wanted, signal);
export const start = (asked: Asked): Promise<{ run: string }> => post(studio("tune"), asked);
export const order = (run: string, what: "pause" | "resume" | "cancel"): Promise<void> =>
  post(studio("tune", run, what));

export async function runs(): Promise<Run[]> {
  return (await get<{ runs: Run[] }>(studio("tune"))).runs;
}

/** Load the adapter of a run beside its model, and return its name. */
export async function use(run: string): Promise<string> {
  return (await post<{ adapter: string }>(studio("tune", run, "use"))).adapter;
}

/** Follow a run from its first event until it has ended; a broken connection is taken up where it was. */
export async function follow(
  run: string,
  take: (event: TuneEvent) => void,
  signal: AbortSignal,
): Promise<void> {
  let last = 0;
  for (let failures = 0; !signal.aborted && failures < 10; failures++) {
    try {
      const response = await send(`${studio("tune", run, "events")}?after=${last}`, { signal });
      if (!response.body) return;
      for await (const event of events(response.body)) {
        failures = 0;
        const told = JSON.parse(event.data) as TuneEvent;
        last = told.number ?? last;
        take(told);
      }
      return;
    } catch (error) {
      if (signal.aborted || (error as { status?: number }).status === 404) return;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

export interface Curve {
  name: "train" | "validation";
  x: number[];
  y: number[];
}

/** What is known of a run from its events so far. */
export class Story {
  readonly train: Curve = { name: "train", x: [], y: [] };
  readonly validation: Curve = { name: "validation", x: [], y: [] };
  readonly samples = new Map<string, { step: number; text: string }[]>(); // by prompt
  readonly lenses = new Map<string, LensColumn[]>(); // by prompt; a list is never changed
  readonly notes: string[] = [];
  step = 0;
  steps = 0;
  left: number | null = null;
  speed: number | null = null;
  said = ""; // the last line that the run printed
  state: RunState | null = null;
  ended: Ended | null = null;
  minutes: number | null = null; // that it was given, the last time that it began or went on

  take(event: TuneEvent): void {
    const step = event.step ?? this.step;
    if (event.event === "step") this.stepped(event, step);
    else if (event.event === "evaluated") put(this.validation, step, event.loss);
    else if (event.event === "sampled" && event.prompt !== undefined) {
      this.samples.set(event.prompt, [
        ...(this.samples.get(event.prompt) ?? []),
        { step, text: event.text ?? "" },
      ]);
    } else if (event.event === "looked" && event.prompt !== undefined && event.blocks) {
      const others = (this.lenses.get(event.prompt) ?? []).filter((one) => one.step !== step);
      const columns = [...others, { step, blocks: event.blocks }];
      this.lenses.set(
        event.prompt,
        columns.sort((one, other) => one.step - other.step),
      );
    } else if (event.event === "noted" && event.text) this.notes.push(event.text);
    else if (event.event === "said") this.said = event.text ?? "";
    else if (event.event === "started") this.started(event);
    else if (event.event === "finished") this.ended = event.reason ?? null;
    else if (event.event === "state") this.state = event.state ?? null;
  }

  /** A run that goes on does the steps behind its last checkpoint again. */
  private started(event: TuneEvent): void {
    const first = event.first_step ?? 0;
    this.ended = null;
    this.minutes = event.minutes ?? null;
    this.steps = event.steps ?? 0;
    this.step = first;
    for (const curve of [this.train, this.validation]) {
      const kept = curve.x.filter((x) => x <= first).length;
      curve.x.length = kept;
      curve.y.length = kept;
    }
    for (const [prompt, texts] of this.samples)
      this.samples.set(
        prompt,
        texts.filter((one) => one.step <= first),
      );
    for (const [prompt, columns] of this.lenses)
      this.lenses.set(
        prompt,
        columns.filter((one) => one.step <= first),
      );
  }

  private stepped(event: TuneEvent, step: number): void {
    put(this.train, step, event.loss);
    this.step = step;
    this.steps = event.steps ?? this.steps;
    this.left = event.left ?? null;
    this.speed = event.tokens_per_second ?? null;
  }
}

function put(curve: Curve, x: number, y: number | undefined): void {
  if (y === undefined) return;
  curve.x.push(x);
  curve.y.push(y);
}
