// The pages of the course, their live cells, and guesses that the model judges.
import { get, post, studio } from "../lib/net/api";
import type { ViewAnswer, ViewTable } from "../look/views";

export interface Cell {
  index: number;
  kind: string;
  label: string;
  text: string;
  plain?: string; // of a formula
}

export interface CoursePage {
  number: number;
  title: string;
  place: string;
  needs: string | null; // without it no cell runs
  lead: Cell[];
  sections: Record<string, Cell[]>;
  solution: Cell[];
}

export interface Contents {
  language: string;
  title: string;
  words: Record<string, string>;
  pages: { number: number; title: string }[];
}

export interface Output {
  printed: string;
  value:
    (ViewAnswer & { kind: "view" }) | (ViewTable & { kind: "table" }) | { kind: "text"; text: string } | null;
}

export interface Verdict {
  judged: "right" | "close" | "wrong" | string;
  text: string;
}

/** The list of pages, in a language if the course has it, else in English. */
export async function contents(language: string): Promise<Contents> {
  const english = await get<Contents & { languages: string[] }>(`${studio("course")}?language=en`);
  if (language === "en" || !english.languages.includes(language)) return english;
  return get<Contents>(`${studio("course")}?language=${language}`);
}

export const page = (language: string, number: number, signal: AbortSignal): Promise<CoursePage> =>
  get(`${studio("course", String(number))}?language=${language}`, signal);

export const run = (language: string, number: number, section: string, index: number): Promise<Output> =>
  post(`${studio("course", String(number), "run")}?language=${language}`, { section, index });

/** Judge a guess; an empty one asks for the answer. */
export const judge = (language: string, number: number, guess: string): Promise<Verdict> =>
  post(`${studio("course", String(number), "check")}?language=${language}`, { guess });
