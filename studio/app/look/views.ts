// The views of `look`: their forms, and what they answer.
import type { FigureData } from "../../draw/figure";
import { get, post, studio } from "../lib/net/api";
import type { Language } from "../lib/words.svelte";

export interface Option {
  name: string;
  kind: "whole" | "number" | "words" | "choice" | "switch";
  default: unknown;
  least: number | null;
  most: number | string | null;
  choices: string[];
}

export interface ViewForm {
  name: string;
  title: string;
  needs_text: boolean;
  options: Option[];
}

export interface ViewTable {
  name: string;
  title: string;
  columns: string[];
  rows: unknown[][];
  left_out: number;
}

export interface ViewAnswer {
  title: string;
  caption: string;
  notes: string[];
  figures: FigureData[];
  tables: ViewTable[];
  command: string;
  python: string;
}

/** What a view is computed with. */
export interface Side {
  model: string;
  adapter: string;
  precision: string;
}

export const PRECISIONS = ["auto", "f32", "q8", "q4"] as const;

export async function forms(): Promise<ViewForm[]> {
  return (await get<{ views: ViewForm[] }>(studio("views"))).views;
}

/** Compute a view. Options that are left empty are the view's own. */
export function view(
  form: ViewForm,
  side: Side,
  text: string | number[],
  options: Record<string, unknown>,
  language: Language,
  signal: AbortSignal,
): Promise<ViewAnswer> {
  const given = form.options.map((one) => [one.name, options[one.name]] as const);
  const body = {
    model: side.model,
    ...(side.adapter ? { adapter: side.adapter } : {}),
    precision: side.precision,
    language,
    ...(form.needs_text ? (typeof text === "string" ? { text } : { ids: text }) : {}),
    options: Object.fromEntries(
      given.filter(([, value]) => value !== "" && value !== null && value !== undefined),
    ),
  };
  return post<ViewAnswer>(studio("views", form.name), body, signal);
}
