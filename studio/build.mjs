// Builds the app, then each file of pages/ as one script that can stand inside a page: view.js, run.js, ...
// Names and bytes depend on the sources alone.
import { readdirSync, rmSync } from "node:fs";
import { build } from "vite";

const here = new URL(".", import.meta.url);
const pages = new URL("../src/pophood/web/dist/", here);
const MODULES = new Set(["widget"]); // loaded as modules; the others run where they stand

await build({ root: here.pathname, logLevel: "warn" });
rmSync(pages, { recursive: true, force: true });
for (const file of readdirSync(new URL("pages/", here)).sort()) {
  if (file === "shared.ts") continue;
  const name = file.replace(/\.ts$/, "");
  await build({
    root: here.pathname,
    configFile: false,
    logLevel: "warn",
    build: {
      outDir: pages.pathname,
      emptyOutDir: false,
      target: "es2022",
      sourcemap: false,
      lib: {
        entry: new URL(`pages/${file}`, here).pathname,
        name: "pophood",
        formats: [MODULES.has(name) ? "es" : "iife"],
        fileName: () => `${name}.js`,
      },
    },
  });
}
