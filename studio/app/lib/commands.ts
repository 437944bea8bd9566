// The command line and the Python that do what a view of the page does.
import { DEFAULTS } from "./tokens/sampling";
import type { Message } from "./talk/prompt";
import type { Settings } from "./types";

export interface Same {
  command: string;
  python: string;
}

/** Quote a text for a POSIX shell. */
export function shell(text: string): string {
  if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(text)) return text;
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Write a value as Python does. */
export function python(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return text(value);
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value)
      .map(([name, one]) => `${text(name)}: ${python(one)}`)
      .join(", ")}}`;
  }
  return String(value);
}

function text(value: string): string {
  // JSON's escapes mean the same in Python, but for halves of surrogate pairs, which UTF-8 has none of.
  return JSON.stringify(value.replace(/\p{Surrogate}/gu, "\ufffd"));
}

const FLAGS: [keyof Settings, string][] = [
  ["temperature", "--temperature"],
  ["top_k", "--top-k"],
  ["top_p", "--top-p"],
  ["min_p", "--min-p"],
  ["repetition_penalty", "--repetition-penalty"],
];

/** Where the command line finds a model and an adapter, and with which precision, types and window. */
export interface Opened {
  model: string;
  adapter: string | null;
  options: Record<string, string | number>;
}

export interface What {
  model: string;
  adapter: string | null;
  settings: Settings;
  seed: number | null;
  template?: Record<string, unknown> | null;
  opened?: Opened;
}

function flags({ settings, seed, template, ...what }: What): string[] {
  const opened = what.opened ?? { ...what, options: {} };
  const changed = FLAGS.filter(([name]) => settings[name] !== DEFAULTS[name]);
  return [
    `-m ${shell(opened.model)}`,
    ...Object.entries(opened.options).map(([name, value]) => `--${name} ${value}`),
    ...(opened.adapter ? [`--adapter ${shell(opened.adapter)}`] : []),
    ...changed.map(([name, flag]) => `${flag} ${settings[name]}`),
    ...(seed === null ? [] : [`--seed ${seed}`]),
    `-n ${settings.max_tokens}`,
    ...Object.entries(template ?? {}).map(
      ([name, value]) =>
        `--template-arg ${shell(`${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)}`,
    ),
  ];
}

function keywords({ settings, seed }: What): string {
  const changed = FLAGS.map(([name]) => name).filter((name) => settings[name] !== DEFAULTS[name]);
  const given = [...changed.map((name) => `${name}=${settings[name]}`), `max_tokens=${settings.max_tokens}`];
  if (seed !== null) given.push(`seed=${seed}`);
  return given.join(", ");
}

function loading(what: What): string {
  const opened = what.opened ?? { ...what, options: {} };
  const options = Object.entries(opened.options)
    .map(([name, value]) => `, ${name}=${python(value)}`)
    .join("");
  const use = opened.adapter ? `\nlm.use_adapters([${python(opened.adapter)}])` : "";
  return `import pophood\n\nlm = pophood.load(${python(opened.model)}${options})${use}\n`;
}

/** Continue a text. */
export function completing(prompt: string, what: What): Same {
  return {
    command: `pophood run ${shell(prompt)} ${flags(what).join(" ")}`,
    python: `${loading(what)}print(lm.generate(${python(prompt)}, ${keywords(what)}).text)`,
  };
}

/** Answer a conversation. The command line asks one question; Python takes every turn. */
export function chatting(talk: Message[], what: What): Same {
  const system = talk.find((one) => one.role === "system");
  const asked = talk.filter((one) => one.role === "user").at(-1);
  const head = system ? [`--system ${shell(system.content)}`] : [];
  const template = what.template ? `, template=${python(what.template)}` : "";
  const turns = talk.map((one) => `    ${python(one)},\n`).join("");
  return {
    command: `pophood chat ${shell(asked?.content ?? "")} ${[...flags(what), ...head].join(" ")}`,
    python:
      `${loading(what)}talk = [\n${turns}]\n` +
      `print("".join(token.text for token in lm.chat(talk${template}, ${keywords(what)})))`,
  };
}

/** Continue from tokens, as the page does: the same seed and samplers give the same bits. */
export function continuing(ids: number[], what: What): Same {
  const { seed: _, ...samplers } = what.settings;
  const adapters = what.adapter ? { adapters: [{ name: what.adapter, scale: 1 }] } : {};
  const body = { model: what.model, prompt: ids, ...samplers, seed: what.seed ?? 0, ...adapters };
  const seeded = { ...what, seed: what.seed ?? 0 };
  return {
    command:
      `curl -s ${globalThis.location?.origin ?? "$POPHOOD_URL"}/v1/completions ` +
      `-H "Authorization: Bearer $POPHOOD_API_KEY" -H "Content-Type: application/json" ` +
      `-d ${shell(JSON.stringify(body))}`,
    python:
      `${loading(what)}print("".join(token.text for token in ` +
      `lm.stream(${python(ids)}, ${keywords(seeded)})))`,
  };
}

/** Tune a model on files. */
export function tuning(asked: {
  files: string[];
  model: string;
  method: string;
  minutes: number;
  prompts: string[];
  lens: boolean;
}): Same {
  const { files, model, method, minutes, prompts, lens } = asked;
  const given = prompts.map((prompt) => ` --prompt ${shell(prompt)}`).join("");
  const other = (method === "lora" ? "" : ` --method ${method}`) + given + (lens ? " --lens" : "");
  const keyword = (method === "lora" ? "" : `, method=${python(method)}`) + (lens ? ", lens=True" : "");
  return {
    command: `pophood tune ${files.map(shell).join(" ")} -m ${shell(model)} --minutes ${minutes}${other}`,
    python:
      `import pophood\n\nfor event in pophood.tune(${python(model)}, ${python(files)}, ` +
      `minutes=${minutes}${keyword}):\n    print(event)`,
  };
}
