// The script of pages of `pophood look --save` and of a tuning report: it draws the figures that the page
// holds.
import type { FigureData } from "../draw/figure";
import { drawInto, held } from "./shared";

const figures = held<FigureData[]>("figures") ?? [];
document.querySelectorAll<HTMLElement>("[data-figure]").forEach((place) => {
  const figure = figures[Number(place.dataset["figure"])];
  if (!figure) return;
  place.hidden = false;
  drawInto(place, figure);
});
document.documentElement.dataset["drawn"] = "yes";
