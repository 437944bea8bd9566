// The widget of `view.widget()` in a notebook, by anywidget: the figures of a view, drawn in the cell.
import type { Drawing } from "../draw/drawing";
import type { FigureData } from "../draw/figure";
import { drawInto } from "./shared";

/** The part of anywidget's model that is used here. */
interface Model {
  get(name: "figures"): FigureData[];
  on(event: "change:figures", call: () => void): void;
  off(event: "change:figures", call: () => void): void;
}

/** Draw the figures into a cell; returns what ends them. */
function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  let drawings: Drawing<FigureData>[] = [];
  const end = (): void => {
    for (const drawing of drawings) drawing.destroy();
    drawings = [];
  };
  const draw = (): void => {
    end();
    const places = model.get("figures").map((figure) => {
      const [part, title, place] = ["section", "h4", "div"].map((tag) => document.createElement(tag));
      if (!part || !title || !place) throw new Error("no document");
      title.textContent = figure.title;
      part.append(title, place);
      return { part, place, figure };
    });
    // In the page first: a drawing is as wide as its place.
    el.replaceChildren(...places.map(({ part }) => part));
    drawings = places.flatMap(({ place, figure }) => drawInto(place, figure) ?? []);
  };
  model.on("change:figures", draw);
  draw();
  return () => {
    model.off("change:figures", draw);
    end();
  };
}

export default { render };
