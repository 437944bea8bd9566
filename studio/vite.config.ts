// The app: studio/index.html and app/main.ts, built to src/pophood/studio/dist. The scripts of saved pages
// have builds of their own: build.mjs.
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte()],
  base: "/studio/",
  build: {
    outDir: "../src/pophood/studio/dist",
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    modulePreload: { polyfill: false }, // the polyfill would fetch; browsers of today need none
    assetsInlineLimit: 0, // no data: addresses, which the page's policy allows for images only
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
