// The tree of the open conversation, and the branch of it that is in sight.
import { Tree } from "./tree";
import type { Turn } from "../types";

export class Branches {
  leaf = $state<string | null>(null); // the end of the branch in sight
  private version = $state(0);
  private held = new Tree();
  readonly path = $derived.by(() => this.tree.path(this.leaf));
  readonly leaves = $derived.by(() => this.tree.leaves());
  readonly turns = $derived.by(() => this.tree.all());

  /** The tree. Who reads it in an effect is told of every change. */
  get tree(): Tree {
    void this.version;
    return this.held;
  }

  get(id: string): Turn | undefined {
    return this.held.get(id);
  }

  siblings(id: string): Turn[] {
    return this.tree.siblings(id);
  }

  /** Turns from the root to this one. */
  pathTo(id: string | null): Turn[] {
    return this.held.path(id);
  }

  /** Turns from the root through this one to the newest end below it. */
  newestPath(id: string): Turn[] {
    return this.held.path(this.held.newest(id));
  }

  /** Take the turns of another conversation; `leaf` ends the branch in sight, else the newest turn does. */
  fill(turns: Turn[], leaf: string | null): void {
    this.held = new Tree(turns);
    this.leaf = leaf && this.held.get(leaf) ? leaf : this.held.newest(null);
    this.version++;
  }

  /** Add a turn, or put a newer state of it in its place. */
  put(turn: Turn): void {
    this.held.add(turn);
    this.version++;
  }

  /** Show the branch through a turn, down to its newest end; null shows none. */
  show(id: string | null): void {
    this.leaf = id === null ? null : this.held.newest(id);
  }

  /** Remove a turn and all below it, and show what is beside it, else before it; returns what is gone. */
  remove(turn: Turn): Turn[] {
    const gone = this.held.remove(turn.id);
    this.version++;
    this.show(this.held.children(turn.parent).at(-1)?.id ?? turn.parent);
    return gone;
  }

  restore(gone: Turn[], leaf: string | null): void {
    this.held.restore(gone);
    this.version++;
    this.leaf = leaf;
  }
}
