// Light or dark, as the person chose it, else as the system has it.
import { type Theme, THEMES, type ThemeName } from "../../draw/theme";

const STORED = "pophood.theme";
export type Choice = ThemeName | "system";

const system = matchMedia("(prefers-color-scheme: dark)");
const state = $state<{ choice: Choice; dark: boolean }>({ choice: stored(), dark: system.matches });
system.addEventListener("change", () => (state.dark = system.matches));

function stored(): Choice {
  const value = localStorage.getItem(STORED);
  return value === "light" || value === "dark" ? value : "system";
}

export function themeChoice(): Choice {
  return state.choice;
}

export function chooseTheme(choice: Choice): void {
  state.choice = choice;
  localStorage.setItem(STORED, choice);
}

/** Colours of pictures. */
export function theme(): Theme {
  return THEMES[state.choice === "system" ? (state.dark ? "dark" : "light") : state.choice];
}
