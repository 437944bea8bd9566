// A conversation as a tree of turns. A path from the root to a leaf is one conversation; where a turn has
// several children, the conversation has branches.
import type { Token, Turn } from "../types";

export class Tree {
  private readonly turns = new Map<string, Turn>();
  private readonly under = new Map<string | null, string[]>();

  constructor(turns: Iterable<Turn> = []) {
    for (const turn of turns) this.add(turn);
  }

  get(id: string): Turn | undefined {
    return this.turns.get(id);
  }

  all(): Turn[] {
    return [...this.turns.values()];
  }

  /** Add a turn, or put a newer state of it in its place. */
  add(turn: Turn): void {
    if (!this.turns.has(turn.id)) {
      const siblings = this.under.get(turn.parent) ?? [];
      siblings.push(turn.id);
      siblings.sort(); // names sort by time
      this.under.set(turn.parent, siblings);
    }
    this.turns.set(turn.id, turn);
  }

  /** Remove a turn and all below it, and return them for `restore`. */
  remove(id: string): Turn[] {
    const turn = this.turns.get(id);
    if (!turn) return [];
    const gone = [turn, ...this.children(id).flatMap((child) => this.remove(child.id))];
    this.turns.delete(id);
    const siblings = (this.under.get(turn.parent) ?? []).filter((one) => one !== id);
    this.under.set(turn.parent, siblings);
    return gone;
  }

  restore(turns: Turn[]): void {
    for (const turn of turns) this.add(turn);
  }

  children(id: string | null): Turn[] {
    return (this.under.get(id) ?? []).map((one) => this.turns.get(one)).filter((one) => one !== undefined);
  }

  /** Turns with the same parent, this one included, oldest first. */
  siblings(id: string): Turn[] {
    const turn = this.turns.get(id);
    return turn ? this.children(turn.parent) : [];
  }

  /** Turns from the root to this one. */
  path(leaf: string | null): Turn[] {
    const path: Turn[] = [];
    const seen = new Set<string>(); // a damaged history must not hang the page
    for (let turn = leaf === null ? undefined : this.turns.get(leaf); turn && !seen.has(turn.id);) {
      seen.add(turn.id);
      path.unshift(turn);
      turn = turn.parent === null ? undefined : this.turns.get(turn.parent);
    }
    return path;
  }

  /** The newest leaf below a turn; null starts at the roots. */
  newest(id: string | null): string | null {
    let at = id;
    for (let next = this.children(at).at(-1); next; next = this.children(at).at(-1)) at = next.id;
    return at;
  }

  leaves(): Turn[] {
    return this.all().filter((turn) => this.children(turn.id).length === 0);
  }
}

/** Number of tokens (or, of turns without tokens, equal texts) with which two answers begin alike. */
export function common(one: Token[], other: Token[]): number {
  let n = 0;
  while (n < one.length && n < other.length && one[n]?.id === other[n]?.id) n++;
  return n;
}

/** Where two branches part: the turns that both have, and the two first turns that differ. */
export interface Parting {
  shared: Turn[];
  left: Turn[];
  right: Turn[];
  tokens: number; // tokens with which the two first different turns begin alike
}

export function parting(tree: Tree, left: string | null, right: string | null): Parting {
  const one = tree.path(left);
  const other = tree.path(right);
  let n = 0;
  while (n < one.length && n < other.length && one[n]?.id === other[n]?.id) n++;
  const first = one[n];
  const second = other[n];
  const tokens = first && second ? common(first.tokens, second.tokens) : 0;
  return { shared: one.slice(0, n), left: one.slice(n), right: other.slice(n), tokens };
}

/** Tokens of an answer without the one that ends it, which has no text. */
export function body(turn: Turn): Token[] {
  const last = turn.tokens.at(-1);
  return turn.finish === "stop" && last?.text === "" ? turn.tokens.slice(0, -1) : turn.tokens;
}

/** Another token in the place of one, with what comes before it: the beginning of a new branch. */
export function chosen(tokens: Token[], index: number, id: number): Token[] {
  const at = tokens[index];
  const choice = at?.top.find(([one]) => one === id);
  if (!at || !choice) return tokens.slice(0, index);
  const taken = { ...at, id, text: choice[1], logprob: choice[2] };
  delete taken.piece;
  return [...tokens.slice(0, index), taken];
}

export function textOf(tokens: Token[]): string {
  return tokens.map((token) => token.text).join("");
}
