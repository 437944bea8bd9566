// Shared by the scripts of saved pages: the figures that a page holds as JSON, drawn in the theme of the
// reader.
import type { Drawing } from "../draw/drawing";
import { draw, type FigureData } from "../draw/figure";
import { saveButtons } from "../draw/save";
import { DARK, LIGHT, type Theme } from "../draw/theme";

const NOTEBOOK = "jpThemeLight";
const darkness = matchMedia("(prefers-color-scheme: dark)");

/** Return the theme that the page has now. */
export function themeNow(): Theme {
  const forced = document.documentElement.dataset["theme"];
  const notebook = document.body.dataset[NOTEBOOK]; // JupyterLab's own theme: "true" or "false"
  if (notebook) return notebook === "false" ? DARK : LIGHT;
  return (forced ? forced === "dark" : darkness.matches) ? DARK : LIGHT;
}

/** Call `change` when the theme of the reader or of a notebook changes; returns what ends that. */
export function whenThemeChanges(change: (theme: Theme) => void): () => void {
  const changed = (): void => change(themeNow());
  const notebook = new MutationObserver(changed);
  notebook.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  darkness.addEventListener("change", changed);
  return () => {
    notebook.disconnect();
    darkness.removeEventListener("change", changed);
  };
}

/** Return the JSON that the page holds under an id. */
export function held<T>(id: string): T | null {
  const text = document.getElementById(id)?.textContent;
  return text ? (JSON.parse(text) as T) : null;
}

/** Draw a figure with buttons to save it, and again when the theme changes, until it is destroyed. */
export function drawInto(target: HTMLElement, figure: FigureData): Drawing<FigureData> | null {
  const stage = document.createElement("div");
  target.replaceChildren(stage);
  const drawing = draw(stage, figure, themeNow());
  if (!drawing) return null;
  const end = whenThemeChanges((theme) => drawing.update(figure, theme));
  target.append(saveButtons(drawing, () => drawing.title() || figure.kind));
  const destroy = drawing.destroy.bind(drawing);
  drawing.destroy = () => {
    end();
    destroy();
  };
  return drawing;
}
