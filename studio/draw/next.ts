// The likeliest next tokens as bars that follow sliders for temperature, top-k, top-p and min-p.
import * as bars from "./bars";
import type { Drawing, Options } from "./drawing";
import { type Control, slider } from "./controls";
import { unpacked } from "./packed";
import { OFF, outcome, type Settings } from "./sampling";
import type { Theme } from "./theme";

export interface NextData {
  kind: "next";
  title: string;
  /** The likeliest tokens, the likeliest first. */
  tokens: readonly { id: number; text: string; logit: number }[];
  /** All logits in falling order, packed. */
  logits: { count: number; low: number; high: number; packed: string };
  unit: string;
  settings?: Partial<Settings>;
}

const SHOWN = 20;

/** Draw the bars with their sliders into an element. */
export function draw(
  target: HTMLElement,
  data: NextData,
  theme: Theme,
  options: Options = {},
): Drawing<NextData> {
  return new Next(target, data, theme, options);
}

class Next implements Drawing<NextData> {
  private readonly controls = document.createElement("div");
  private readonly stage = document.createElement("div");
  private readonly facts = document.createElement("p");
  private settings: Settings;
  private falling: Float32Array;
  private readonly drawn: Drawing<bars.BarsData>;

  constructor(
    target: HTMLElement,
    private data: NextData,
    private theme: Theme,
    options: Options,
  ) {
    this.settings = { ...OFF, ...data.settings };
    this.falling = unpacked(data.logits.packed, data.logits.low, data.logits.high);
    this.controls.className = "ph-controls";
    this.facts.setAttribute("role", "status");
    this.facts.className = "ph-facts";
    target.replaceChildren(this.controls, this.stage, this.facts);
    this.controls.append(...this.sliders());
    this.drawn = bars.draw(this.stage, this.bars(), theme, options);
  }

  update(data: NextData, theme: Theme = this.theme): void {
    if (data !== this.data) this.falling = unpacked(data.logits.packed, data.logits.low, data.logits.high);
    this.data = data;
    this.theme = theme;
    this.drawn.update(this.bars(), theme);
  }

  title(): string {
    return this.data.title;
  }

  svg(): string {
    return this.drawn.svg();
  }

  png(): Promise<Blob> {
    return this.drawn.png();
  }

  csv(): string {
    return this.drawn.csv();
  }

  destroy(): void {
    this.drawn.destroy();
    this.controls.remove();
    this.stage.remove();
    this.facts.remove();
  }

  private sliders(): HTMLElement[] {
    const set = (name: keyof Settings) => (value: number) => {
      this.settings = { ...this.settings, [name]: value };
      this.update(this.data);
    };
    const { temperature, topK, topP, minP } = this.settings;
    const controls: Control[] = [
      { name: "temperature", least: 0, most: 2, step: 0.05, value: temperature, set: set("temperature") },
      {
        name: "top-k",
        least: 0,
        most: 100,
        step: 1,
        value: topK,
        set: set("topK"),
        words: (k) => (k ? String(k) : "off"),
      },
      {
        name: "top-p",
        least: 0.05,
        most: 1,
        step: 0.01,
        value: topP,
        set: set("topP"),
        words: (p) => (p < 1 ? p.toFixed(2) : "off"),
      },
      {
        name: "min-p",
        least: 0,
        most: 0.5,
        step: 0.01,
        value: minP,
        set: set("minP"),
        words: (p) => (p ? p.toFixed(2) : "off"),
      },
    ];
    return controls.map(slider);
  }

  private bars(): bars.BarsData {
    this.facts.textContent = factsOf(this.data, this.falling, this.settings);
    return barsOf(this.data, this.falling, this.settings);
  }
}

function factsOf(data: NextData, falling: Float32Array, settings: Settings): string {
  const now = outcome(falling, settings);
  const choices = (2 ** now.entropy).toFixed(1);
  return (
    `${now.left.toLocaleString("en")} of ${data.logits.count.toLocaleString("en")} tokens can be drawn; ` +
    `entropy ${now.entropy.toFixed(2)} bits, like choosing among ${choices}. ` +
    "The lines mark the model's own probabilities."
  );
}

/** Return the probabilities of the likeliest tokens under settings, beside those of the model itself. */
export function barsOf(data: NextData, falling: Float32Array, settings: Settings): bars.BarsData {
  const now = outcome(falling, settings);
  const raw = outcome(falling, OFF);
  const shown = data.tokens.slice(0, SHOWN);
  return {
    kind: "bars",
    title: data.title,
    labels: shown.map((token) => token.text),
    values: shown.map((_, i) => now.probabilities[i] ?? 0),
    before: shown.map((_, i) => raw.probabilities[i] ?? 0),
    unit: data.unit,
    most: 1,
  };
}
