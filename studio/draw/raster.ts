// A scene as a canvas and as a PNG file.
import { paint, type Scene } from "./scene";

const MOST = 16_384; // pixels of a side that every browser's canvas has

/** Draw a scene on a canvas at so many pixels for each of CSS's; at fewer if it is very long. */
export function paintOn(canvas: HTMLCanvasElement, scene: Scene, background: string, scale: number): void {
  scale = Math.min(scale, MOST / scene.width, MOST / scene.height);
  canvas.width = Math.round(scene.width * scale);
  canvas.height = Math.round(scene.height * scale);
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(scale, scale);
  paint(scene, context, background);
}

/** Return a scene as a PNG file at twice its size. */
export function pngOf(scene: Scene, background: string): Promise<Blob> {
  const canvas = document.createElement("canvas");
  paintOn(canvas, scene, background, 2);
  return new Promise((done, fail) => {
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("the picture is too large for a PNG"))));
  });
}
