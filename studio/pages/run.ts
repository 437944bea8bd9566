// The script of the page that `pophood run --html` writes: tokens coloured by probability or entropy, and
// curves of both through the text. The page's own style and script show the cards; they work without this.
import { picker } from "../draw/controls";
import type { CurvesData } from "../draw/curves";
import { saveButtons } from "../draw/save";
import { css, readableOn } from "../draw/theme";
import { stripFile, tint, type TokensData } from "../draw/tokens";
import { drawInto, held, themeNow, whenThemeChanges } from "./shared";

interface RunToken {
  text: string;
  id: number;
  probability: number | null;
  entropy: number | null; // bits
}

interface Way {
  name: string;
  unit: string;
  value: (token: RunToken) => number | null;
}

const SURPRISE = 12; // bits at the end of the colours, as in `look surprise`
const WAYS: readonly Way[] = [
  { name: "probability", unit: "", value: () => null }, // the page's own five shades
  { name: "surprisal", unit: "bits", value: (token) => bits(token.probability) },
  { name: "entropy", unit: "bits", value: (token) => token.entropy },
];

const outputs = held<RunToken[][]>("tokens") ?? [];
let way = 0;

function bits(probability: number | null): number | null {
  return probability === null || probability <= 0 ? null : -Math.log2(probability);
}

/** Return an output as a strip of tokens under the way of colouring that is chosen. */
function strip(tokens: readonly RunToken[], at: number): TokensData {
  const chosen = WAYS[at || 1] as Way;
  return {
    kind: "tokens",
    title: `The text by ${chosen.name}`,
    tokens: tokens.map((token) => ({ text: token.text, id: token.id, value: chosen.value(token) })),
    unit: chosen.unit,
    low: 0,
    high: SURPRISE,
  };
}

/** Colour the tokens of the page; its own shades come back with the first way. */
function colour(): void {
  const theme = themeNow();
  document.documentElement.classList.toggle("tinted", way > 0);
  outputs.forEach((tokens, output) => {
    const data = strip(tokens, way);
    tokens.forEach((_, i) => {
      const link = document.getElementById(`o${output + 1}t${i + 1}`);
      if (!link) return;
      const shade = tint(data.tokens[i]?.value ?? null, data, theme);
      link.style.backgroundColor = way ? css(shade) : "";
      link.style.color = way ? readableOn(shade) : "";
    });
  });
}

/** Return probability and entropy of every token as curves. */
function curves(tokens: readonly RunToken[]): CurvesData {
  const x = tokens.map((_, i) => i + 1);
  return {
    kind: "curves",
    title: "Surprisal and entropy, token by token",
    series: [
      { name: "surprisal", x, y: tokens.map((token) => bits(token.probability)) },
      { name: "entropy", x, y: tokens.map((token) => token.entropy) },
    ],
    x_unit: "token",
    y_unit: "bits",
  };
}

function start(): void {
  const places = document.querySelectorAll<HTMLElement>("[data-output]");
  places.forEach((place) => {
    const tokens = outputs[Number(place.dataset["output"])] ?? [];
    const figure = document.createElement("div");
    const words = document.createElement("h3");
    words.textContent = curves(tokens).title;
    const strips = () => stripFile(strip(tokens, way), themeNow(), 760);
    const files = { svg: () => strips().svg(), csv: () => strips().csv(), png: () => strips().png() };
    const saved = saveButtons(files, () => strip(tokens, way).title, "Save the coloured text as");
    place.append(saved, words, figure);
    if (tokens.length > 1) drawInto(figure, curves(tokens));
    else words.remove();
  });
  const choose = (to: number): void => {
    way = to;
    colour();
  };
  const choice = picker(
    "Colour",
    WAYS.map((one) => one.name),
    way,
    choose,
  );
  document.querySelector(".legend")?.before(choice);
  choice.classList.add("colour");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "c" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLElement && event.target.closest("input, select, textarea")) return;
    choose((way + 1) % WAYS.length);
    const select = choice.querySelector("select");
    if (select) select.selectedIndex = way;
  });
  whenThemeChanges(colour);
  document.documentElement.dataset["drawn"] = "yes";
}

start();
