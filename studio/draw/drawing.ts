// Puts a scene into a page: a canvas, a label that follows the pointer, keys that walk from mark to mark, and
// the same words for readers of screens. Every module draws through here.
import { Buttons } from "./buttons";
import { sheet } from "./style";
import { measure } from "./measure";
import { paintOn, pngOf } from "./raster";
import { type Measure, type Scene, svgOf } from "./scene";
import type { Theme } from "./theme";

/** Called with the number of a mark, and -1 when the pointer leaves. */
export interface Options {
  onSelect?: (index: number) => void;
  onHover?: (index: number) => void;
  /** The drawing for readers of screens, in the language of the page; else the module's own words. */
  words?: string;
  /** True for marks that are choices: each is a button. */
  buttons?: boolean;
}

/** A drawing in a page. `update` draws other data or another theme in its place. */
export interface Drawing<Data> {
  update(data: Data, theme?: Theme): void;
  /** The title of what is shown now. */
  title(): string;
  svg(): string;
  csv(): string;
  png(): Promise<Blob>;
  destroy(): void;
}

/** One kind of picture: its scene, its numbers as CSV, and its title. */
export interface Module<Data> {
  scene(data: Data, theme: Theme, width: number, measure: Measure): Scene;
  csv(data: Data): string;
  title(data: Data): string;
}

const LEAST = 240; // pixels of width that every scene may count on; a narrower page scrolls

/** Draw `data` into `target`, as wide as that is. */
export function mount<Data>(
  module: Module<Data>,
  target: HTMLElement,
  data: Data,
  theme: Theme,
  options: Options = {},
): Drawing<Data> {
  return new Mounted(module, target, data, theme, options);
}

class Mounted<Data> implements Drawing<Data> {
  private readonly root = document.createElement("div");
  private readonly stage = document.createElement("div");
  private readonly canvas = document.createElement("canvas");
  private readonly ring = document.createElement("div");
  private readonly tip = document.createElement("div");
  private readonly said = document.createElement("p");
  private readonly watcher: ResizeObserver;
  private readonly gone = new AbortController();
  private readonly buttons: Buttons | null;
  private shown: Scene = { width: 1, height: 1, items: [], words: "" };
  private at = -1;
  private frame = 0;

  constructor(
    private readonly module: Module<Data>,
    private readonly target: HTMLElement,
    private data: Data,
    private theme: Theme,
    private readonly options: Options,
  ) {
    this.root.className = "ph-drawing";
    this.stage.className = "ph-stage";
    this.ring.className = "ph-ring";
    this.tip.className = "ph-tip";
    this.said.className = "ph-said";
    this.said.setAttribute("role", "status");
    this.tip.setAttribute("aria-hidden", "true");
    this.canvas.setAttribute("aria-hidden", "true");
    this.buttons = options.buttons
      ? new Buttons(
          (i) => this.choose(i),
          (i) => this.point(i, false),
        )
      : null;
    if (!this.buttons) this.stage.tabIndex = 0;
    this.stage.setAttribute("role", this.buttons ? "group" : "application");
    this.stage.append(this.canvas, this.ring, ...(this.buttons ? [this.buttons.root] : []));
    this.root.append(this.stage, this.tip, this.said);
    const { adoptedStyleSheets } = document;
    if (!adoptedStyleSheets.includes(sheet())) document.adoptedStyleSheets = [...adoptedStyleSheets, sheet()];
    target.replaceChildren(this.root);
    this.listen();
    this.watcher = new ResizeObserver(() => this.later());
    this.watcher.observe(target);
    this.draw();
  }

  update(data: Data, theme: Theme = this.theme): void {
    this.data = data;
    this.theme = theme;
    this.later();
  }

  title(): string {
    return this.module.title(this.data);
  }

  svg(): string {
    return svgOf(this.shown, this.module.title(this.data), this.theme.background);
  }

  csv(): string {
    return this.module.csv(this.data);
  }

  png(): Promise<Blob> {
    return pngOf(this.shown, this.theme.background);
  }

  destroy(): void {
    cancelAnimationFrame(this.frame);
    this.watcher.disconnect();
    this.gone.abort();
    this.root.remove();
  }

  /** Draw at the next frame; several calls draw once. */
  private later(): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    const room = Math.floor(this.target.getBoundingClientRect().width) || 640;
    const width = Math.max(LEAST, room);
    this.shown = this.module.scene(this.data, this.theme, width, measure);
    const { background, surface, text, muted, line, accents } = this.theme;
    Object.entries({ background, surface, text, muted, line, accent: accents[0] ?? text }).forEach(
      ([name, colour]) => this.root.style.setProperty(`--ph-${name}`, colour),
    );
    paintOn(this.canvas, this.shown, background, devicePixelRatio || 1);
    this.canvas.style.width = `${this.shown.width}px`;
    // Said outright: a browser may keep a scroll bar that one frame needed.
    this.stage.style.overflowX = this.shown.width > room ? "auto" : "hidden";
    this.canvas.style.height = `${this.shown.height}px`;
    this.buttons?.place(this.shown.marks);
    const walk = this.shown.marks?.count ? " Arrow keys walk." : "";
    const words = this.options.words ?? `${this.module.title(this.data)}. ${this.shown.words}${walk}`;
    this.stage.setAttribute("aria-label", words);
    if (this.at >= (this.shown.marks?.count ?? 0)) this.at = -1;
    this.point(this.at, this.at >= 0 && document.activeElement === this.stage);
  }

  private listen(): void {
    const { signal } = this.gone;
    const place = (event: PointerEvent | MouseEvent): number => {
      const box = this.canvas.getBoundingClientRect();
      return this.shown.marks?.find(event.clientX - box.x, event.clientY - box.y) ?? -1;
    };
    this.stage.addEventListener("pointermove", (event) => this.point(place(event), false), { signal });
    this.stage.addEventListener("pointerleave", () => this.point(-1, false), { signal });
    this.stage.addEventListener("click", (event) => this.choose(place(event)), { signal });
    this.stage.addEventListener(
      "focus",
      () => {
        if (this.at < 0 && this.stage.matches(":focus-visible"))
          this.point(this.shown.marks?.start ?? -1, true);
      },
      { signal },
    );
    this.stage.addEventListener("blur", () => this.point(-1, false), { signal });
    this.stage.addEventListener("keydown", (event) => this.key(event), { signal });
  }

  private key(event: KeyboardEvent): void {
    const marks = this.shown.marks;
    if (!marks?.count) return;
    const { key } = event;
    const to = this.at < 0 ? marks.start : marks.step(this.at, key);
    if (/^(Arrow|Home|End)/.test(key)) {
      if (this.buttons) this.buttons.focus(to);
      else this.point(to, true);
    } else if (this.buttons)
      return; // a button answers Enter, the page Escape
    else if (key === "Enter" || key === " ") this.choose(this.at);
    else if (key === "Escape") this.point(-1, false);
    else return;
    event.preventDefault();
  }

  private choose(index: number): void {
    if (index >= 0) this.options.onSelect?.(index);
  }

  /** Show which mark is pointed at, in a ring, a label and a line of words. */
  private point(index: number, say: boolean): void {
    const before = this.at;
    this.at = index;
    const mark = index >= 0 ? this.shown.marks?.at(index) : undefined;
    this.ring.hidden = this.tip.hidden = !mark;
    if (before !== index) this.options.onHover?.(index);
    if (!mark) {
      this.said.textContent = "";
      return;
    }
    Object.assign(this.ring.style, {
      left: `${mark.x}px`,
      top: `${mark.y}px`,
      width: `${mark.width}px`,
      height: `${mark.height}px`,
    });
    this.tip.textContent = mark.label;
    if (say) this.said.textContent = mark.label;
    const left = Math.min(
      Math.max(mark.x - this.stage.scrollLeft, 0),
      this.root.clientWidth - this.tip.offsetWidth,
    );
    const above = mark.y - this.tip.offsetHeight - 6;
    this.tip.style.left = `${Math.max(left, 0)}px`;
    this.tip.style.top = `${above >= 0 ? above : mark.y + mark.height + 6}px`;
  }
}
