// The command line and the Python that give an answer of a conversation again, to the bit.
import { app } from "../app.svelte";
import { chatting, completing, continuing, type Same, type What } from "../commands";
import type { Chat } from "./chat.svelte";
import { messages } from "./prompt";
import type { Turn } from "../types";

/** What computes the rest of an answer behind its first `from` tokens. */
export function what(chat: Chat, turn: Turn, from: number): What {
  const settings = turn.settings ?? chat.settings;
  const whole =
    turn.finish === "stop" ? Math.max(settings.max_tokens, turn.tokens.length) : turn.tokens.length;
  return {
    ...named(turn.model ?? chat.head.model, turn.adapter ?? null),
    settings: { ...settings, max_tokens: Math.max(1, whole - from) },
    seed: turn.seed ?? 0,
    template: chat.head.template_args,
  };
}

/** The last answer of the branch in sight again; before there is one, the answer that would come next. */
export function sameAnswer(chat: Chat): Same {
  const last = chat.branches.path.at(-1);
  const turn = last?.role === "assistant" ? last : undefined;
  const before = turn ? chat.branches.path.slice(0, -1) : chat.branches.path;
  const kept = turn?.kept ?? 0;
  const how = turn ? what(chat, turn, kept) : next(chat);
  const ids = turn?.prompt_ids ?? chat.rendered?.ids ?? [];
  const from = continuing([...ids, ...(turn?.tokens.slice(0, kept).map((token) => token.id) ?? [])], how);
  const talk = messages({ system: chat.head.system }, before);
  const alone = before.length === 1 && kept === 0; // a question or a text that was typed
  if (chat.mode === "complete") return alone ? completing(before[0]?.text ?? "", how) : from;
  if (kept > 0) return from;
  const said = chatting(talk, how);
  return alone || ids.length === 0 ? said : { command: from.command, python: said.python };
}

function next(chat: Chat): What {
  return {
    ...named(chat.head.model, chat.head.adapter),
    settings: chat.settings,
    seed: chat.settings.seed,
    template: chat.head.template_args,
  };
}

/** A model and an adapter as the server names them, and as the command line finds them. */
export function named(
  model: string | null,
  adapter: string | null,
): Pick<What, "model" | "adapter" | "opened"> {
  const name = model ?? app.state?.model ?? "";
  const facts = app.state?.models.find((one) => one.id === name);
  const place = adapter === null ? null : (facts?.adapter_places?.[adapter] ?? adapter);
  return {
    model: name,
    adapter,
    opened: { model: facts?.opened_as ?? name, adapter: place, options: facts?.opened_with ?? {} },
  };
}
