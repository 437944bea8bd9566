// Every text of the page, in the language that the person chose. Two files have the same keys: a test
// compares.
import en from "../words/en.json";

export type Key = keyof typeof en;
export type Language = "en" | "es";
export const LANGUAGES: Record<Language, string> = { en: "English", es: "Español" };
const STORED = "pophood.language";

const state = $state<{ language: Language; words: Record<Key, string> }>({ language: "en", words: en });

/** Return a text, with values in the places of {names}. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  return state.words[key].replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : (value ?? whole);
  });
}

/** Return a text for a name that the server gives, if there is one. */
export function known(key: string): string | undefined {
  return (state.words as Record<string, string>)[key];
}

export function number(value: number, digits = 1): string {
  return new Intl.NumberFormat(state.language, { maximumFractionDigits: digits }).format(value);
}

/** Return a day and time, of seconds since 1970. */
export function date(seconds: number): string {
  const format = { day: "numeric", month: "short", hour: "numeric", minute: "2-digit" } as const;
  return new Intl.DateTimeFormat(state.language, format).format(1000 * seconds);
}

export function percent(share: number): string {
  const digits = share > 0 && share < 0.001 ? 3 : 1;
  const least = share > 0 && share < 1 ? 1 : 0; // so that a column of them is in line
  const format = { style: "percent", maximumFractionDigits: digits, minimumFractionDigits: least } as const;
  return new Intl.NumberFormat(state.language, format).format(share);
}

/** Return a number of bytes in binary units. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let at = 0;
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024;
  return `${number(value, value < 10 && at > 0 ? 1 : 0)} ${units[at]}`;
}

export function language(): Language {
  return state.language;
}

export async function speak(chosen: Language): Promise<void> {
  state.words = chosen === "es" ? (await import("../words/es.json")).default : en;
  state.language = chosen;
  document.documentElement.lang = chosen;
  localStorage.setItem(STORED, chosen);
}

/** The language of the last visit, else the browser's. */
export function preferred(): Language {
  const stored = localStorage.getItem(STORED);
  if (stored === "en" || stored === "es") return stored;
  return navigator.language.startsWith("es") ? "es" : "en";
}
