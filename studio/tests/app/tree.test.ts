import { describe, expect, test } from "vitest";
import { body, chosen, common, parting, textOf, Tree } from "../../app/lib/talk/tree";
import type { Token, Turn } from "../../app/lib/types";

export function token(id: number, text = `t${id}`, top: Token["top"] = []): Token {
  return { id, text, logprob: -1, entropy: 1, top };
}

function turn(id: string, parent: string | null, tokens: Token[] = []): Turn {
  return { id, parent, role: tokens.length > 0 ? "assistant" : "user", text: id, tokens };
}

const TURNS = [
  turn("a", null),
  turn("b", "a"),
  turn("c", "a"),
  turn("d", "b"),
  turn("e", "c"),
  turn("f", "c"),
];

describe("a tree of turns", () => {
  test("paths, siblings and the newest end", () => {
    const tree = new Tree(TURNS);
    expect(tree.path("e").map((one) => one.id)).toEqual(["a", "c", "e"]);
    expect(tree.siblings("b").map((one) => one.id)).toEqual(["b", "c"]);
    expect(tree.newest(null)).toBe("f");
    expect(tree.newest("b")).toBe("d");
    expect(tree.leaves().map((one) => one.id)).toEqual(["d", "e", "f"]);
  });

  test("children come in the order of their names, whatever the order they arrive in", () => {
    const tree = new Tree(TURNS.toReversed());
    expect(tree.children("c").map((one) => one.id)).toEqual(["e", "f"]);
  });

  test("what is removed comes back whole", () => {
    const tree = new Tree(TURNS);
    const gone = tree.remove("c");
    expect(gone.map((one) => one.id)).toEqual(["c", "e", "f"]);
    expect(tree.newest(null)).toBe("d");
    tree.restore(gone);
    expect(tree.newest(null)).toBe("f");
    expect(tree.all().length).toBe(6);
  });

  test("a newer state of a turn takes its place", () => {
    const tree = new Tree(TURNS);
    tree.add({ ...turn("c", "a"), name: "other" });
    expect(tree.siblings("b").length).toBe(2);
    expect(tree.get("c")?.name).toBe("other");
  });

  test("a circle in a damaged history does not hang", () => {
    expect(new Tree([turn("x", "y"), turn("y", "x")]).path("x").length).toBe(2);
  });

  test("where two branches part", () => {
    const left = turn("b", "a", [token(1), token(2), token(3)]);
    const right = turn("c", "a", [token(1), token(2), token(9)]);
    const parted = parting(new Tree([turn("a", null), left, right]), "b", "c");
    expect(parted.shared.map((one) => one.id)).toEqual(["a"]);
    expect(parted.tokens).toBe(2);
  });
});

describe("tokens of an answer", () => {
  test("another one takes a place, and what follows is gone", () => {
    const tokens = [token(1), token(2, " b", [[7, " z", -2]]), token(3)];
    const kept = chosen(tokens, 1, 7);
    expect(kept.map((one) => one.id)).toEqual([1, 7]);
    expect(kept[1]).toMatchObject({ text: " z", logprob: -2 });
    expect(textOf(kept)).toBe("t1 z");
    expect(common(tokens, kept)).toBe(1);
  });

  test("the token that ends an answer is no part of it", () => {
    const answer = { ...turn("a", null, [token(1), token(2, "")]), finish: "stop" };
    expect(body(answer).length).toBe(1);
    expect(body({ ...answer, finish: "length" }).length).toBe(2);
  });
});
