// The width of texts, by the browser's own measure; outside a browser an estimate.
import { FONT } from "./scene";

let ruler: CanvasRenderingContext2D | null = null;

/** Return the width of a text in pixels. */
export function measure(text: string, size: number, bold = false): number {
  if (typeof document === "undefined") return 0.6 * size * text.length;
  ruler ??= document.createElement("canvas").getContext("2d");
  if (!ruler) return 0.6 * size * text.length;
  ruler.font = `${bold ? "600 " : ""}${size}px ${FONT}`;
  return ruler.measureText(text).width;
}
