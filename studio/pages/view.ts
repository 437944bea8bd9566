// The script of a page that `pophood look --save` writes: it draws the figures that the page holds.
import type { FigureData } from "../draw/figure";
import { drawInto, held } from "./shared";

const figures = held<FigureData[]>("figures") ?? [];
document.querySelectorAll<HTMLElement>("[data-figure]").forEach((place) => {
  const figure = figures[Number(place.dataset["figure"])];
  if (figure) drawInto(place, figure);
});
document.documentElement.dataset["drawn"] = "yes";
