import { describe, expect, test } from "vitest";
import { chatting, completing, python, shell } from "../../app/lib/commands";
import { strongest } from "../../app/lib/tokens/insides";
import { DEFAULTS, survivors } from "../../app/lib/tokens/sampling";
import { format, parse } from "../../app/lib/router";
import { visible } from "../../app/lib/visible";

const TOP = [0.5, 0.25, 0.15, 0.1].map((p, i) => [i, `t${i}`, Math.log(p)] as const);
const PLAIN = { ...DEFAULTS, temperature: 1, top_k: 0 };
const chances = (settings: object): number[] =>
  survivors(TOP, { ...PLAIN, ...settings }).map((one) => Math.round(one.chance * 1000) / 1000);

describe("what samplers leave", () => {
  test("everything without them", () => expect(chances({})).toEqual([0.5, 0.25, 0.15, 0.1]));
  test("top-k", () => expect(chances({ top_k: 2 })).toEqual([0.667, 0.333, 0, 0]));
  test("top-p keeps the one that reaches the sum", () =>
    expect(chances({ top_p: 0.6 })).toEqual([0.667, 0.333, 0, 0]));
  test("min-p", () => expect(chances({ min_p: 0.3 })).toEqual([0.556, 0.278, 0.167, 0]));
  test("temperature 0 takes the likeliest", () => expect(chances({ temperature: 0 })).toEqual([1, 0, 0, 0]));
  test("a low temperature is bolder", () =>
    expect(chances({ temperature: 0.5, top_k: 4 })[0]).toBeGreaterThan(0.7));
});

describe("commands", () => {
  test("quote what a shell or Python would read", () => {
    expect(shell("it's $HOME")).toBe(`'it'\\''s $HOME'`);
    expect(shell("plain-1.5")).toBe("plain-1.5");
    expect(python({ a: [true, null, '\n"\ud800'] })).toBe('{"a": [True, None, "\\n\\"\ufffd"]}');
  });

  test("say the settings that differ, and the seed", () => {
    const what = { model: "smollm2", adapter: "notes", settings: { ...DEFAULTS, top_p: 0.9 }, seed: 3 };
    const same = completing("Hi", what);
    expect(same.command).toBe("pophood run Hi -m smollm2 --adapter notes --top-p 0.9 --seed 3 -n 200");
    expect(same.python).toContain('lm.generate("Hi", top_p=0.9, max_tokens=200, seed=3)');
    const talk = [
      { role: "system", content: "Be brief" },
      { role: "user", content: "Why?" },
    ];
    expect(chatting(talk, what).command).toContain("pophood chat 'Why?' -m smollm2");
    expect(chatting(talk, what).command).toContain("--system 'Be brief'");
  });
});

test("addresses of the page are read as they are written", () => {
  const place = { screen: "look", parts: ["attention map"], query: { text: "a&b=c #" } } as const;
  expect(parse(format(place.screen, [...place.parts], place.query))).toEqual(place);
  expect(parse("#/nonsense/%zz").screen).toBe("chat");
});

test("heads on the first token are not the strongest", () => {
  const heads = strongest(
    [
      { layer: 0, head: 0, weights: [0.9, 0.1] },
      { layer: 1, head: 2, weights: [0.2, 0.8] },
    ],
    1,
  );
  expect(heads).toMatchObject([{ layer: 1, head: 2, most: 0.8 }]);
});

test("odd letters are seen", () => {
  expect(visible("  a\n")).toBe("··a⏎");
  expect(visible("\u202e")).toBe("\\u202e");
  expect(visible("")).toBe("∅");
});
