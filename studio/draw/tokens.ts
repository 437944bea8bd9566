// A text as a strip of tokens, each coloured by its value. The words stay words: they wrap, and can be
// selected.
import type { Drawing, Options } from "./drawing";
import { measure } from "./measure";
import { pngOf } from "./raster";
import { type Item, type Scene, svgOf } from "./scene";
import { sheet } from "./style";
import { type Colour, css, mixed, readableOn, type Theme } from "./theme";
import { csvOf, figure, quoted } from "./words";

export interface StripToken {
  text: string;
  id: number | null;
  value: number | null;
  /** The token in words, if the page has its own. */
  said?: string;
}

export interface TokensData {
  kind: "tokens";
  title: string;
  tokens: readonly StripToken[];
  unit: string;
  low: number;
  high: number;
  /** A token that stands out: the one whose card is open. */
  marked?: number;
}

const SIZE = 15;
const LINE = 30;
const STRONGEST = 0.8; // of the accent in the colour of the highest value

/** Return the colour of a value: from the background to the accent. */
export function tint(value: number | null, data: Pick<TokensData, "low" | "high">, theme: Theme): Colour {
  const share =
    value === null ? 0 : Math.min(Math.max((value - data.low) / (data.high - data.low || 1), 0), 1);
  return mixed(theme.accents[0] ?? theme.text, theme.background, STRONGEST * share);
}

/** Draw a strip of tokens into an element; `onSelect` gets the number of a token. */
export function draw(
  target: HTMLElement,
  data: TokensData,
  theme: Theme,
  options: Options = {},
): Drawing<TokensData> {
  return new Strip(target, data, theme, options);
}

class Strip implements Drawing<TokensData> {
  private readonly root = document.createElement("div");
  private readonly text = document.createElement("p");
  private readonly tip = document.createElement("div");
  private spans: HTMLSpanElement[] = [];
  private at = 0;

  constructor(
    target: HTMLElement,
    private data: TokensData,
    private theme: Theme,
    private readonly options: Options,
  ) {
    this.root.className = "ph-drawing";
    this.text.className = "ph-tokens";
    this.text.setAttribute("role", "group");
    this.tip.className = "ph-tip";
    this.tip.hidden = true;
    this.tip.setAttribute("role", "status");
    this.root.append(this.text, this.tip);
    const { adoptedStyleSheets } = document;
    if (!adoptedStyleSheets.includes(sheet())) document.adoptedStyleSheets = [...adoptedStyleSheets, sheet()];
    target.replaceChildren(this.root);
    this.listen();
    this.update(data, theme);
  }

  update(data: TokensData, theme: Theme = this.theme): void {
    this.data = data;
    this.theme = theme;
    const { background, surface, text, muted, line, accents } = theme;
    Object.entries({ background, surface, text, muted, line, accent: accents[0] ?? text }).forEach(
      ([name, colour]) => this.root.style.setProperty(`--ph-${name}`, colour),
    );
    this.text.setAttribute(
      "aria-label",
      this.options.words ?? `${data.title}. ${data.tokens.length} tokens coloured by ${data.unit}.`,
    );
    this.at = Math.min(this.at, Math.max(data.tokens.length - 1, 0));
    while (this.spans.length > data.tokens.length) this.spans.pop()?.remove();
    data.tokens.forEach((token, i) => this.show(token, i));
  }

  /** Write one token; spans stay, so that a growing answer costs its new tokens only. */
  private show(token: StripToken, index: number): void {
    let span = this.spans[index];
    if (!span) {
      span = document.createElement("span");
      span.dataset["index"] = String(index);
      span.setAttribute("role", this.options.onSelect ? "button" : "img");
      span.tabIndex = index === this.at ? 0 : -1;
      this.spans.push(span);
      this.text.append(span);
    }
    const colour = tint(token.value, this.data, this.theme);
    if (span.textContent !== token.text) span.textContent = token.text;
    span.style.backgroundColor = css(colour);
    span.style.color = readableOn(colour);
    span.style.fontWeight = index === this.data.marked ? "700" : "";
    span.setAttribute("aria-label", this.words(index));
    if (this.options.onSelect) span.setAttribute("aria-pressed", String(index === this.data.marked));
  }

  title(): string {
    return this.data.title;
  }

  svg(): string {
    return this.file().svg();
  }

  png(): Promise<Blob> {
    return this.file().png();
  }

  csv(): string {
    return this.file().csv();
  }

  private file(): StripFile {
    return stripFile(this.data, this.theme, this.root.clientWidth || 640);
  }

  destroy(): void {
    this.root.remove();
  }

  private words(index: number): string {
    const token = this.data.tokens[index];
    if (!token) return "";
    if (token.said) return token.said;
    const id = token.id === null ? "" : ` (token ${token.id})`;
    const value = token.value === null ? "no value" : `${figure(token.value)} ${this.data.unit}`;
    return `${quoted(token.text)}${id}: ${value}`;
  }

  private listen(): void {
    const indexOf = (event: Event): number => {
      const span =
        event.target instanceof HTMLElement ? event.target.closest<HTMLElement>("span[data-index]") : null;
      return span ? Number(span.dataset["index"]) : -1;
    };
    this.text.addEventListener("pointerover", (event) => this.point(indexOf(event)));
    this.text.addEventListener("pointerleave", () => this.point(-1));
    this.text.addEventListener("focusin", (event) => this.focused(indexOf(event)));
    this.text.addEventListener("focusout", () => this.point(-1));
    this.text.addEventListener("click", (event) => this.choose(indexOf(event)));
    this.text.addEventListener("keydown", (event) => {
      const index = indexOf(event);
      const last = this.spans.length - 1;
      const steps: Record<string, number> = {
        ArrowRight: index + 1,
        ArrowLeft: index - 1,
        Home: 0,
        End: last,
      };
      const to = steps[event.key];
      if (to !== undefined) this.spans[Math.min(Math.max(to, 0), last)]?.focus();
      else if (event.key === "Enter" || event.key === " ") this.choose(index);
      else if (event.key === "Escape") this.point(-1);
      else return;
      event.preventDefault();
    });
  }

  private focused(index: number): void {
    const before = this.spans[this.at];
    if (before) before.tabIndex = -1;
    this.at = Math.max(index, 0);
    const span = this.spans[this.at];
    if (span) span.tabIndex = 0;
    this.point(index);
  }

  private choose(index: number): void {
    if (index >= 0) this.options.onSelect?.(index);
  }

  private point(index: number): void {
    const span = this.spans[index];
    this.tip.hidden = !span;
    this.options.onHover?.(index);
    if (!span) return;
    this.tip.textContent = this.words(index);
    const box = span.getClientRects()[0];
    const frame = this.root.getBoundingClientRect();
    if (!box) return;
    const left = Math.min(box.x - frame.x, frame.width - this.tip.offsetWidth);
    const above = box.y - frame.y - this.tip.offsetHeight - 6;
    this.tip.style.left = `${Math.max(left, 0)}px`;
    this.tip.style.top = `${above >= 0 ? above : box.bottom - frame.y + 6}px`;
  }
}

/** The strip as files. */
export type StripFile = Pick<Drawing<TokensData>, "svg" | "csv" | "png">;

/** Return what writes a strip as files, for a strip that stands in no page too. */
export function stripFile(data: TokensData, theme: Theme, width: number): StripFile {
  const shown = stripScene(data, theme, width);
  const rows = data.tokens.map((token, i) => [i, token.id, token.text, token.value]);
  return {
    svg: () => svgOf(shown, data.title, theme.background),
    csv: () => csvOf([["position", "id", "text", data.unit || "value"], ...rows]),
    png: () => pngOf(shown, theme.background),
  };
}

/** Return a line in pieces that are no wider than the picture; `fresh` ones begin a line. */
function pieces(line: string, most: number, fresh: boolean): { part: string; fresh: boolean }[] {
  if (measure(line, SIZE) <= most) return [{ part: line, fresh }];
  const parts = [{ part: "", fresh: true }];
  for (const letter of line) {
    const last = parts.at(-1) as { part: string };
    if (last.part && measure(last.part + letter, SIZE) > most) parts.push({ part: letter, fresh: true });
    else last.part += letter;
  }
  return parts;
}

/** Return the strip as a picture for files: lines are broken between tokens. */
export function stripScene(data: TokensData, theme: Theme, width: number): Scene {
  const items: Item[] = [];
  let [x, y] = [8, 8];
  for (const token of data.tokens) {
    const lines = token.text.split("\n").flatMap((line, i) => pieces(line, width - 16, i > 0));
    lines.forEach(({ part, fresh }) => {
      if (fresh) [x, y] = [8, y + LINE];
      const wide = measure(part, SIZE);
      if (x + wide > width - 8 && x > 8) [x, y] = [8, y + LINE];
      if (!part) return;
      const colour = tint(token.value, data, theme);
      items.push(
        { kind: "rect", x, y, width: wide, height: LINE - 6, fill: css(colour) },
        { kind: "text", x, y: y + (LINE - 6) / 2, text: part, fill: readableOn(colour), size: SIZE },
      );
      x += wide;
    });
  }
  return {
    width,
    height: y + LINE + 8,
    items,
    words: `${data.tokens.length} tokens coloured by ${data.unit}.`,
  };
}
