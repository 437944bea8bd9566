import { describe, expect, test, vi } from "vitest";
import { Saver } from "../../app/lib/net/saver";
import { Painter } from "../../app/lib/paint";
import { fromKept, toKept } from "../../app/lib/talk/kept";
import { segments } from "../../app/lib/tokens/segments";
import { ulid } from "../../app/lib/net/ulid";
import type { Turn } from "../../app/lib/types";
import { token } from "./tree.test";

const TURN: Turn = {
  id: "n",
  parent: "p",
  role: "assistant",
  text: "a b",
  tokens: [token(1, "a"), { ...token(2, " b"), piece: "x" }],
  settings: {
    temperature: 0,
    top_k: 1,
    top_p: 1,
    min_p: 0,
    repetition_penalty: 1,
    max_tokens: 5,
    seed: null,
  },
  seed: 3,
  finish: "stop",
  name: null,
  model: "m",
  adapter: "notes",
  cached: 4,
  rate: 9.5,
  kept: 1,
  prompt_ids: [8, 9],
};

describe("turns on the server", () => {
  test("come back as they were", () => {
    const { after, ...kept } = toKept(TURN, 0);
    expect(after).toBe(0);
    expect(kept.prompt).toEqual([8, 9, 1]);
    expect(fromKept(JSON.parse(JSON.stringify(kept)))).toEqual(TURN);
  });

  test("a growing answer sends its new tokens alone", () => {
    expect(toKept(TURN, 1).tokens?.map((one) => one.id)).toEqual([2]);
  });

  test("are sent in order, again after a failure, each in its newest state", async () => {
    const sent: string[] = [];
    let failures = 2;
    const put = (text: string) => async () => {
      if (failures-- > 0) throw new TypeError("fetch failed");
      sent.push(text);
    };
    const told = vi.fn();
    const saver = new Saver(told, async () => undefined);
    for (const text of ["1", "2", "3"]) saver.save("n", put(text));
    for (const text of ["place 1", "place 2"]) {
      saver.saveLast("place", put(text));
      saver.save(text, put(`turn of ${text}`));
    }
    await saver.settled();
    expect(sent).toEqual(["3", "turn of place 1", "place 2", "turn of place 2"]);
    expect(told.mock.calls.filter(([, failure]) => failure !== null).length).toBe(2);
    expect(told.mock.calls.at(-1)).toEqual([0, null]);
  });

  test("what the server refuses is not sent for ever, and is told", async () => {
    const gone = Object.assign(new Error("gone"), { status: 404 });
    const put = vi.fn(async () => Promise.reject(gone));
    const told = vi.fn();
    const saver = new Saver(told);
    saver.save("n", put);
    await saver.settled();
    expect(put).toHaveBeenCalledTimes(1);
    expect(told).toHaveBeenLastCalledWith(0, gone);
  });
});

describe("painting", () => {
  function clock(hidden = false) {
    const waiting: [number, () => void][] = [];
    const state = { at: 0, hidden, waiting };
    return {
      state,
      clock: {
        now: () => state.at,
        later: (run: () => void, wait: number) => waiting.push([state.at + wait, run]) - 1,
        cancel: (timer: unknown) => (waiting[timer as number] = [Infinity, () => undefined]),
        hidden: () => state.hidden,
      },
      run(to: number) {
        for (state.at = 0; state.at <= to; state.at++) {
          for (const one of waiting.filter(([due]) => due === state.at)) {
            one[0] = Infinity;
            one[1]();
          }
        }
      },
    };
  }

  test("happens at most 20 times a second", () => {
    const { clock: own, state } = clock();
    const paint = vi.fn();
    const painter = new Painter(paint, own);
    for (state.at = 0; state.at < 1000; state.at++) {
      painter.ask();
      for (const one of state.waiting.filter(([due]) => due <= state.at)) {
        one[0] = Infinity;
        one[1]();
      }
    }
    expect(paint.mock.calls.length).toBeGreaterThanOrEqual(19);
    expect(paint.mock.calls.length).toBeLessThanOrEqual(20);
  });

  test("waits until the page is seen again", () => {
    const { clock: own, state } = clock(true);
    const paint = vi.fn();
    const painter = new Painter(paint, own);
    painter.ask();
    expect(state.waiting.length).toBe(0);
    state.hidden = false;
    painter.flush();
    painter.flush();
    expect(paint).toHaveBeenCalledTimes(1);
  });
});

describe("blocks of a long answer", () => {
  const tokens = Array.from({ length: 4000 }, (_, i) => ({ text: i % 40 === 39 ? " end.\n" : " word" }));

  test("hold every token once, and end with a line break", () => {
    const blocks = segments(tokens);
    expect(blocks[0]?.start).toBe(0);
    expect(blocks.at(-1)?.end).toBe(4000);
    blocks.slice(1).forEach((block, i) => expect(block.start).toBe(blocks[i]?.end));
    expect(blocks.length).toBeGreaterThan(30);
  });

  test("in front of the last one do not change when the text grows", () => {
    const before = segments(tokens.slice(0, 2000));
    const after = segments(tokens.slice(0, 2100));
    expect(after.slice(0, before.length - 1)).toEqual(before.slice(0, -1));
  });

  test("of no text are one", () => expect(segments([])).toEqual([{ start: 0, end: 0, lines: 1 }]));
});

test("names sort by time, and by their order within a millisecond", () => {
  const made = [ulid(1000), ulid(1000), ulid(1000), ulid(2000)];
  expect(made.toSorted()).toEqual(made);
  expect(new Set(made).size).toBe(4);
  expect(made.every((one) => /^[0-9A-HJKMNP-TV-Z]{26}$/.test(one))).toBe(true);
});
