// Heat maps to choose from: the attention of any head of any layer, with the row that is pointed at as bars.
import * as bars from "./bars";
import { picker } from "./controls";
import type { Drawing, Options } from "./drawing";
import * as heatmap from "./heatmap";
import { halves } from "./packed";
import * as roles from "./roles";
import type { Theme } from "./theme";
import { quoted } from "./words";

export interface StackData {
  kind: "stack";
  title: string;
  /** Two choices, such as layer and head; `at` is the one that is shown first. */
  pickers: readonly { name: string; labels: readonly string[]; at: number }[];
  /** A name for each pair of choices. */
  names: readonly (readonly string[])[];
  rows: readonly string[];
  columns: readonly string[];
  low: number;
  high: number;
  diverging: boolean;
  unit: string;
  /** The numbers as 16-bit floats, base64. */
  halves: string;
}

const MOST_BARS = 40;
const BESIDE = 16; // columns up to which the bars stand beside the map

/** Draw the chosen heat map with its pickers into an element. */
export function draw(
  target: HTMLElement,
  data: StackData,
  theme: Theme,
  options: Options = {},
): Drawing<StackData> {
  return new Stack(target, data, theme, options);
}

/** Return one heat map of a stack. */
export function layerOf(
  data: StackData,
  values: Float32Array,
  first: number,
  second: number,
): heatmap.HeatmapData {
  const seconds = data.pickers[1]?.labels.length ?? 1;
  const [rows, columns] = [data.rows.length, data.columns.length];
  const start = (first * seconds + second) * rows * columns;
  const row = (r: number): (number | null)[] =>
    [...values.subarray(start + r * columns, start + (r + 1) * columns)].map((value) =>
      Number.isNaN(value) ? null : value,
    );
  const [one, two] = data.pickers;
  const name = data.names[first]?.[second] ?? "";
  return {
    kind: "heatmap",
    title: `${one?.name} ${one?.labels[first]}, ${two?.name} ${two?.labels[second]}${name && `: ${name}`}`,
    rows: data.rows,
    columns: data.columns,
    values: data.rows.map((_, r) => row(r)),
    low: data.low,
    high: data.high,
    diverging: data.diverging,
    unit: data.unit,
  };
}

class Stack implements Drawing<StackData> {
  private readonly root = document.createElement("div");
  private readonly controls = document.createElement("div");
  private readonly name = document.createElement("p");
  private readonly stage = document.createElement("div");
  private readonly below = document.createElement("div");
  private readonly caption = document.createElement("p");
  private readonly rowStage = document.createElement("div");
  private values: Float32Array;
  private at: [number, number];
  private row: number;
  private map: heatmap.HeatmapData;
  private readonly drawn: Drawing<heatmap.HeatmapData>;
  private readonly bars: Drawing<bars.BarsData> | null;
  private readonly roles: Drawing<roles.RolesData> | null;
  private readonly grid = document.createElement("div");

  constructor(
    target: HTMLElement,
    private data: StackData,
    private theme: Theme,
    options: Options,
  ) {
    this.values = halves(data.halves);
    this.at = [data.pickers[0]?.at ?? 0, data.pickers[1]?.at ?? 0];
    this.row = data.rows.length - 1;
    this.map = layerOf(data, this.values, ...this.at);
    this.controls.className = "ph-controls";
    this.name.setAttribute("role", "status");
    this.name.className = "ph-facts";
    const pair = document.createElement("div");
    pair.className = data.columns.length <= BESIDE ? "ph-pair" : "";
    this.caption.className = "ph-facts";
    this.below.append(this.caption, this.rowStage);
    pair.append(this.stage, this.below);
    this.root.append(this.controls, this.name, pair, this.grid);
    target.replaceChildren(this.root);
    this.fill();
    const hover = (index: number): void => {
      if (index >= 0) this.pointRow(Math.floor(index / data.columns.length));
      options.onHover?.(index);
    };
    this.drawn = heatmap.draw(this.stage, this.map, theme, { ...options, onHover: hover });
    this.bars = data.columns.length <= MOST_BARS ? bars.draw(this.rowStage, this.rowBars(), theme) : null;
    const words = document.createElement("p");
    words.className = "ph-facts";
    const place = document.createElement("div");
    this.grid.append(words, place);
    this.grid.hidden = !this.hasRoles();
    words.textContent = this.rolesNow().title;
    this.roles = this.hasRoles()
      ? roles.draw(place, this.rolesNow(), theme, { onSelect: (i) => this.take(i) })
      : null;
    this.name.textContent = this.map.title;
  }

  /** True if there are several first choices, and names to show for them. */
  private hasRoles(): boolean {
    return (this.data.pickers[0]?.labels.length ?? 0) > 1 && this.data.names.flat().some(Boolean);
  }

  private rolesNow(): roles.RolesData {
    const [one, two] = this.data.pickers;
    return {
      kind: "roles",
      title: `The measured role of every ${two?.name}: choose one`,
      axes: [one?.name ?? "", two?.name ?? ""],
      columns: one?.labels ?? [],
      rows: two?.labels ?? [],
      names: this.data.names,
      marked: this.at,
    };
  }

  private take(index: number): void {
    const firsts = this.data.pickers[0]?.labels.length ?? 1;
    this.at = [index % firsts, Math.floor(index / firsts)];
    this.fill();
    this.redraw();
  }

  update(data: StackData, theme: Theme = this.theme): void {
    if (data !== this.data) {
      this.values = halves(data.halves);
      this.at = [data.pickers[0]?.at ?? 0, data.pickers[1]?.at ?? 0];
      this.row = data.rows.length - 1;
    }
    this.data = data;
    this.theme = theme;
    this.fill();
    this.redraw();
  }

  title(): string {
    return this.map.title;
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
    this.bars?.destroy();
    this.roles?.destroy();
    this.root.remove();
  }

  private fill(): void {
    const choices = this.data.pickers.map((one, i) =>
      picker(one.name, this.labels(i), this.at[i as 0 | 1], (at) => {
        this.at[i as 0 | 1] = at;
        this.fill();
        this.redraw();
        this.controls.querySelectorAll("select")[i]?.focus();
      }),
    );
    this.controls.replaceChildren(...choices);
  }

  /** Return the labels of a picker; the second one's have the names at the first one's choice. */
  private labels(which: number): string[] {
    const labels = this.data.pickers[which]?.labels ?? [];
    if (which === 0) return [...labels];
    return labels.map((label, i) => [label, this.data.names[this.at[0]]?.[i]].filter(Boolean).join(": "));
  }

  private redraw(): void {
    this.map = layerOf(this.data, this.values, ...this.at);
    this.name.textContent = this.map.title;
    this.drawn.update(this.map, this.theme);
    this.roles?.update(this.rolesNow(), this.theme);
    this.bars?.update(this.rowBars(), this.theme);
  }

  private pointRow(row: number): void {
    if (row === this.row) return;
    this.row = row;
    this.bars?.update(this.rowBars(), this.theme);
  }

  private rowBars(): bars.BarsData {
    const seen = (this.map.values[this.row] ?? []).map((value, i) => ({
      value,
      label: this.data.columns[i] ?? "",
    }));
    const shown = seen.filter(({ value }) => value !== null);
    this.caption.textContent = `What ${quoted(this.data.rows[this.row] ?? "")} takes`;
    return {
      kind: "bars",
      title: `${this.map.title}: what ${quoted(this.data.rows[this.row] ?? "")} takes`,
      labels: shown.map(({ label }) => label),
      values: shown.map(({ value }) => value),
      unit: this.data.unit,
      most: this.data.high,
    };
  }
}
