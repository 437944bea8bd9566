// The style of drawings, as a sheet that a script adds: a page's policy allows that without naming a hash.

const RULES = `
.ph-drawing { position: relative; color: var(--ph-text); background: var(--ph-background); }
.ph-drawing [hidden] { display: none; }
.ph-stage { position: relative; overflow: hidden; }
.ph-stage canvas { display: block; }
.ph-stage:focus-visible { outline: 3px solid var(--ph-accent); outline-offset: 2px; }
.ph-ring { position: absolute; pointer-events: none; border: 2px solid var(--ph-text);
  outline: 1px solid var(--ph-background); border-radius: 2px; box-sizing: border-box;
  min-width: 6px; min-height: 6px; }
.ph-tip { position: absolute; z-index: 1; pointer-events: none; max-width: min(28rem, 100%);
  padding: .25rem .5rem; border: 1px solid var(--ph-line); border-radius: .35rem;
  background: var(--ph-surface); color: var(--ph-text);
  font: .85rem/1.4 system-ui, sans-serif; white-space: pre-wrap; overflow-wrap: anywhere; }
.ph-buttons button { position: absolute; min-width: 0; min-height: 0; margin: 0; padding: 0; border: 0;
  background: none; border-radius: 3px; cursor: pointer; }
.ph-buttons button:focus-visible { outline: 2px solid var(--ph-accent); outline-offset: 1px; }
.ph-said { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%); }
.ph-tokens { margin: 0; font: 1.05rem/2 system-ui, sans-serif; white-space: pre-wrap; overflow-wrap: anywhere;
  overflow-x: clip; tab-size: 2; }
.ph-tokens span { padding: .15em 0; border-radius: .15em; cursor: pointer; }
.ph-tokens span:hover, .ph-tokens span:focus { outline: 2px solid var(--ph-accent); outline-offset: 1px; }
.ph-controls { display: flex; flex-wrap: wrap; gap: .35rem 1.25rem; align-items: center; margin: 0 0 .75rem;
  font: .9rem/1.4 system-ui, sans-serif; color: var(--ph-text, inherit); }
.ph-controls label { display: inline-flex; gap: .5rem; align-items: center; }
.ph-controls output { min-width: 3.2em; font-variant-numeric: tabular-nums; }
.ph-controls input[type="range"] { width: 10rem; max-width: 40vw; accent-color: var(--ph-accent, auto); }
.ph-controls select, .ph-controls button, .ph-save button { font: inherit; }
.ph-facts { margin: .25rem 0 .5rem; font: .9rem/1.4 system-ui, sans-serif; }
.ph-pair { display: grid; gap: .5rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.ph-pair > * { min-width: 0; }
.ph-save button { padding: .2rem .7rem; border-radius: .4rem; }
.ph-save { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; margin: .5rem 0 0;
  font: .85rem/1.4 system-ui, sans-serif; }
`;

let made: CSSStyleSheet | undefined;

/** Return the style sheet of all drawings. */
export function sheet(): CSSStyleSheet {
  if (!made) {
    made = new CSSStyleSheet();
    made.replaceSync(RULES);
  }
  return made;
}
