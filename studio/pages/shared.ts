// Shared by the scripts of saved pages: the figures that a page holds as JSON, drawn in the theme of the reader.
import type { Drawing } from "../draw/drawing";
import { draw, type FigureData } from "../draw/figure";
import { saveButtons } from "../draw/save";
import { DARK, LIGHT, type Theme } from "../draw/theme";

const darkness = matchMedia("(prefers-color-scheme: dark)");

/** Return the theme that the page has now. */
export function themeNow(): Theme {
  const forced = document.documentElement.dataset["theme"];
  const notebook = document.body.dataset["jpThemeLight"]; // JupyterLab's own theme: "true" or "false"
  if (notebook) return notebook === "false" ? DARK : LIGHT;
  return (forced ? forced === "dark" : darkness.matches) ? DARK : LIGHT;
}

/** Call `change` when the reader's theme changes. */
export function whenThemeChanges(change: (theme: Theme) => void): void {
  darkness.addEventListener("change", () => change(themeNow()));
}

/** Return the JSON that the page holds under an id. */
export function held<T>(id: string): T | null {
  const text = document.getElementById(id)?.textContent;
  return text ? (JSON.parse(text) as T) : null;
}

/** Draw a figure with buttons to save it, and again when the theme changes. */
export function drawInto(target: HTMLElement, figure: FigureData): Drawing<FigureData> | null {
  const stage = document.createElement("div");
  target.replaceChildren(stage);
  const drawing = draw(stage, figure, themeNow());
  if (!drawing) return null;
  whenThemeChanges((theme) => drawing.update(figure, theme));
  target.append(saveButtons(drawing, () => drawing.title() || figure.kind));
  return drawing;
}
