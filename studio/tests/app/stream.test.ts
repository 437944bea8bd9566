import { describe, expect, test } from "vitest";
import { Parser } from "../../app/lib/net/sse";
import { answer, Assembler, type Request, temporary } from "../../app/lib/net/stream";
import { ApiError } from "../../app/lib/net/api";
import type { Token } from "../../app/lib/types";

const encoder = new TextEncoder();
const REQUEST: Request = { prompt: [1, 2], max_tokens: 4, seed: 7 };

function piece(id: number, text: string, more: object = {}): string {
  const inspect = [
    { id, token: text, logprob: -0.1, entropy: 0.5, top: [{ id, token: text, logprob: -0.1 }] },
  ];
  const choice = { text, finish_reason: null, inspect };
  return `data: ${JSON.stringify({ choices: [choice], ...more })}\n\n`;
}

const USAGE = { choices: [], usage: { prompt_tokens_details: { cached_tokens: 1 } } };
const END = `data: ${JSON.stringify({
  choices: [{ text: "", finish_reason: "length" }],
  seed: 7,
  timings: { predicted_per_second: 50 },
})}\n\ndata: ${JSON.stringify(USAGE)}\n\ndata: [DONE]\n\n`;
const DEAD = `data: ${JSON.stringify({ error: { message: "the process ended", code: "engine_dead" } })}\n\n`;

/** A server that answers one request after the other, each with a body cut into single bytes. */
function server(...answers: (string | number | Error)[]) {
  const asked: Request[] = [];
  const fetcher = async (_: string, options?: RequestInit): Promise<Response> => {
    asked.push(JSON.parse(options?.body as string) as Request);
    const next = answers.shift() ?? new Error("asked too often");
    if (next instanceof Error) throw next;
    if (typeof next === "number")
      return new Response(JSON.stringify({ error: { message: "no" } }), { status: next });
    const bytes = encoder.encode(next);
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
        controller.close();
      },
    });
    return new Response(body);
  };
  return { asked, fetcher };
}

async function run(...answers: (string | number | Error)[]) {
  const { asked, fetcher } = server(...answers);
  const tokens: Token[] = [];
  const said: string[] = [];
  const listener = {
    tokens: (more: Token[]) => tokens.push(...more),
    lost: () => said.push("lost"),
    back: () => said.push("back"),
  };
  const outcome = await answer(
    REQUEST,
    listener,
    new AbortController().signal,
    fetcher,
    async () => undefined,
  );
  return { asked, tokens, said, outcome };
}

describe("server-sent events", () => {
  test("lines may end in three ways, and comments say nothing", () => {
    const parser = new Parser();
    const events = parser.feed(": keep-alive\r\nevent: x\rdata: 1\ndata: 2\n\ndata:3\r\n\r\n");
    expect(events).toEqual([
      { event: "x", data: "1\n2", id: "" },
      { event: "message", data: "3", id: "" },
    ]);
  });

  test("cuts anywhere change nothing", () => {
    const text = "id: 4\r\ndata: añb\r\n\r\n";
    const parser = new Parser();
    expect([...text].flatMap((letter) => parser.feed(letter))).toEqual([
      { event: "message", data: "añb", id: "4" },
    ]);
  });
});

describe("an answer", () => {
  test("comes token by token, with its outcome", async () => {
    const { tokens, outcome } = await run(piece(5, "Hi ñ") + piece(6, "!") + END);
    expect(tokens.map((one) => one.text)).toEqual(["Hi ñ", "!"]);
    expect(outcome).toEqual({ finish: "length", seed: 7, cached: 1, rate: 50 });
  });

  test("goes on after the model's process ended, from the tokens that came", async () => {
    const { asked, tokens, said } = await run(piece(5, "a") + DEAD, 503, piece(6, "b") + END);
    expect(tokens.map((one) => one.text)).toEqual(["a", "b"]);
    expect(asked.map((one) => [one.prompt, one.max_tokens])).toEqual([
      [[1, 2], 4],
      [[1, 2, 5], 3],
      [[1, 2, 5], 3],
    ]);
    expect(said).toEqual(["back", "lost", "lost", "back"]);
  });

  test("goes on after a connection that broke", async () => {
    const { tokens } = await run(piece(5, "a"), new TypeError("fetch failed"), piece(6, "b") + END);
    expect(tokens.length).toBe(2);
  });

  test("waits two minutes for a model, and asks most often at first", async () => {
    const pauses: number[] = [];
    const gone = async (): Promise<Response> => Promise.reject(new TypeError("fetch failed"));
    const signal = new AbortController().signal;
    const waiting = answer(REQUEST, {}, signal, gone, async (time) => void pauses.push(time));
    await expect(waiting).rejects.toThrow("fetch failed");
    expect(pauses.slice(0, 4)).toEqual([250, 250, 250, 250]);
    expect(pauses.reduce((sum, time) => sum + time, 0)).toBe(120_000);
  });

  test("a refusal is told, once", async () => {
    await expect(run(400)).rejects.toThrow("no");
    expect(temporary(new ApiError(400, "no"))).toBe(false);
  });

  test("ends when the person stops it", async () => {
    const control = new AbortController();
    const fetcher = async (): Promise<Response> => {
      control.abort();
      throw new DOMException("aborted", "AbortError");
    };
    const outcome = await answer(REQUEST, {}, control.signal, fetcher);
    expect(outcome.finish).toBeNull();
  });
});

test("a character's text comes with its last token", () => {
  const record = (id: number, text: string) => ({ id, token: text, logprob: -1, entropy: 0, top: [] });
  const tokens = new Assembler().take("ñ", [record(1, "\\xc3"), record(2, "\\xb1")]);
  expect(tokens.map((one) => [one.text, one.piece])).toEqual([
    ["", "\\xc3"],
    ["ñ", "\\xb1"],
  ]);
});
