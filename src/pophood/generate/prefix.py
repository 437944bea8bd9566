"""PrefixCache: keys and values of earlier prompts and answers, for prompts that begin with the same tokens.

A radix tree over token ids, one for each combination of adapters. Every node holds a sequence of the engine
with all tokens from the root to the node's end; sequences share blocks of 32 positions, so that a node costs
only the blocks of its own tokens. The least recently used leaf goes first when there are too many blocks.

In layers with an attention window a sequence keeps what its next position sees. So a prompt goes on where a
node ends: the scheduler keeps one at the end of every prompt and answer, at every KEPT_EVERYth token, and
where two prompts part. Between those some tokens are computed again. A single conversation that grows too
large loses the windows of its earlier nodes before its last one.

    root ── "You are helpful. " ─┬─ "What is 2 + 2? ..."          two conversations with one system prompt
                                 └─ "Translate: ..." ── "Now ..."
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pophood.generate.decoder import Decoder, KvBlocks

KEPT_EVERY = 1_024  # tokens after which a sequence with attention windows is kept


class TokenScore(NamedTuple):
    """A token of a prompt as the tokens before it predict it.

    `log_probability` in nats is None for the first token. `top` are the likeliest tokens there, the likeliest
    first: (id, log-probability).
    """

    id: int
    log_probability: float | None
    top: tuple[tuple[int, float], ...] = ()


class Reused(NamedTuple):
    """A sequence that holds the first `length` tokens of a prompt, and the scores of `length` + 1 of them.

    The scores are empty unless they were asked for. The first `known` tokens are here, but some have to be
    computed again.
    """

    sequence: int
    length: int
    scores: tuple[TokenScore, ...] = ()
    known: int = 0


class Span(NamedTuple):
    """The tokens from the root to the end of a node, whose own begin at `start`, and its sequence."""

    ids: tuple[int, ...]
    start: int
    sequence: int
    adapters: tuple[int, ...]

    @property
    def end(self) -> int:
        return len(self.ids)


@dataclass(eq=False, slots=True)
class _Node:
    ids: tuple[int, ...]  # from `start` on
    start: int
    sequence: int
    parent: _Node | None
    scores: tuple[TokenScore, ...] = ()  # of `ids`, or empty
    top: int = 0  # likeliest tokens in each score
    children: dict[int, _Node] = field(default_factory=dict)  # by the first token
    windows: bool = True  # its sequence has something in layers with an attention window
    blocks: int = 0  # that no other node holds: the first may be a copy of the parent's last

    @property
    def end(self) -> int:
        return self.start + len(self.ids)

    @property
    def above(self) -> list[_Node]:
        """The nodes above it, from its parent to the root."""
        nodes, node = [], self.parent
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes


class PrefixCache:
    """Keeps what was computed, up to `blocks` KV blocks (None: as many as one context window has).

    `take` hands out a sequence that the caller owns; `keep` takes one back. The engine drops all sequences
    when its weights change; the cache then starts anew.

    Example: `prefix = PrefixCache(engine)`, then pass it to every `generate`.
    """

    def __init__(self, engine: Decoder, blocks: int | None = None) -> None:
        self._engine = engine
        self.kv = KvBlocks.of(engine.config)
        self.limit = self.kv.held(engine.context) if blocks is None else blocks
        self.blocks = 0  # held at present
        self._roots: dict[tuple[int, ...], dict[int, _Node]] = {}
        self._nodes: OrderedDict[_Node, tuple[int, ...]] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        """The number of sequences that are held."""
        return len(self._nodes)

    def take(
        self, ids: Sequence[int], adapters: tuple[int, ...] | None = None, scores: int | None = None
    ) -> Reused:
        """Return a sequence that holds the first n of `ids`, n < len(ids), computed with these adapters.

        With `scores`, only tokens count whose scores are known with so many likeliest tokens.
        """
        key = self._engine.adapters if adapters is None else adapters
        path, shared = self._match(ids, key)
        found: list[TokenScore] = []
        if scores is not None:
            for node in path:
                if not node.scores or node.top < scores:
                    break
                found += (score._replace(top=score.top[:scores]) for score in node.scores)
            shared = min(shared - 1, len(found) - 1)  # a score needs the row before its token
        shared = max(min(shared, len(ids) - 1), 0)
        try:
            holder, length = self._holder(path, shared)
            if holder is not None:
                sequence = self._engine.fork(holder.sequence)
                self._engine.truncate(sequence, length)
                self._touch(holder)
                return Reused(sequence, length, tuple(found[: length + 1]), shared)
        except IndexError:  # the engine has dropped it, and all others
            self.forget()
            shared = 0
        return Reused(self._engine.new_sequence(key), 0, known=shared)

    def copy(self, ids: Sequence[int], adapters: tuple[int, ...]) -> Reused:
        """Return a sequence that holds the first n of `ids`, and as much of attention windows as is there.

        It can go on there, but may have to compute windows again.
        """
        path, shared = self._match(ids, adapters)
        holders = [node.sequence for node in path if node.end >= shared > 0]
        try:
            best = max(holders, key=lambda sequence: self._engine.resumable(sequence, shared), default=None)
            if best is not None:
                sequence = self._engine.fork(best)
                self._engine.truncate(sequence, shared)
                return Reused(sequence, shared)
        except IndexError:  # the engine has dropped it, and all others
            self.forget()
        return Reused(self._engine.new_sequence(adapters), 0)

    def known(self, ids: Sequence[int], adapters: tuple[int, ...]) -> int:
        """Return how many of the first tokens are here, computed with these adapters."""
        return self._match(ids, adapters)[1]

    def keep(
        self,
        sequence: int,
        ids: Sequence[int],
        scores: Sequence[TokenScore] = (),
        top: int = 0,
        *,
        part: bool = False,
    ) -> None:
        """Take over a sequence, which holds the first of `ids`; `scores` are those of its first tokens.

        With `part` its windows stay even if it cannot go on from them: more of it is to follow.
        """
        try:
            ids = tuple(ids[: self._engine.length(sequence)])
            key = self._engine.adapters_of(sequence)
        except IndexError:  # the engine has dropped it, and all others
            self.forget()
            return
        if 0 < len(scores) < len(ids):
            prompt = self._engine.fork(sequence)
            self._engine.truncate(prompt, len(scores))
            self.keep(prompt, ids, scores, top)
            scores = ()
        path, shared = self._match(ids, key)
        whole = self._engine.resumable(sequence, len(ids)) == len(ids)
        resumed = self.kv.windowed > 0 and whole
        if path and shared < path[-1].end and (scores or resumed or shared < len(ids)):
            path[-1] = self._split(path[-1], shared - path[-1].start, key)
        if shared < len(ids):
            parent = path[-1] if path else None
            path.append(self._add(sequence, ids[shared:], shared, parent, key, windows=whole or part))
        else:
            if path and whole and path[-1].end == shared and not self._whole(path[-1]):
                path[-1].sequence, sequence = sequence, path[-1].sequence
                self._count(path[-1], windows=True)
            self._engine.drop(sequence)
        for node in path:
            if len(scores) >= node.end and (not node.scores or node.top < top):
                node.scores, node.top = tuple(scores[node.start : node.end]), top
        if path:
            self._touch(path[-1])
        self.shrink(self.limit)

    def spans(self) -> Iterator[Span]:
        """Yield everything that is held, the least recently used first, parents after their children."""
        for node, key in list(self._nodes.items()):
            parts = [one.ids for one in reversed((node, *node.above))]
            yield Span(tuple(itertools.chain(*parts)), node.start, node.sequence, key)

    def shrink(self, blocks: int) -> None:
        """Drop the least recently used sequences until at most `blocks` blocks are held."""
        while self.blocks > max(blocks, 0) and self._nodes:
            leaf = next(iter(self._nodes))
            if not self._thin(leaf):
                self._remove(leaf)

    def forget(self) -> None:
        """Drop everything."""
        for node in self._nodes:
            with contextlib.suppress(IndexError):  # the engine has dropped it
                self._engine.drop(node.sequence)
        self._nodes.clear()
        self._roots.clear()
        self.blocks = 0

    def forget_adapter(self, number: int) -> None:
        """Drop what was computed with an adapter."""
        for node in [node for node, key in self._nodes.items() if number in key]:  # leaves come first
            self._remove(node)

    def _match(self, ids: Sequence[int], key: tuple[int, ...]) -> tuple[list[_Node], int]:
        """Return the nodes along `ids`, the last of them perhaps in part, and the number of tokens shared."""
        path: list[_Node] = []
        shared, children = 0, self._roots.get(key, {})
        while shared < len(ids) and (node := children.get(ids[shared])) is not None:
            length = common_length(node.ids, ids[shared : shared + len(node.ids)])
            path.append(node)
            shared += length
            if length < len(node.ids):
                break
            children = node.children
        return path, shared

    def _holder(self, path: Sequence[_Node], shared: int) -> tuple[_Node | None, int]:
        """Return the node that can go on after the most of the first `shared` tokens, and how many."""
        best: _Node | None = None
        most = 0
        for node in path:
            end = min(shared, node.end)
            if end > most and (length := self._engine.resumable(node.sequence, end)) > most:
                best, most = node, length
        return best, most

    def _whole(self, node: _Node) -> bool:
        return self._engine.resumable(node.sequence, node.end) == node.end

    def _add(
        self,
        sequence: int,
        ids: tuple[int, ...],
        start: int,
        parent: _Node | None,
        key: tuple[int, ...],
        *,
        windows: bool,
    ) -> _Node:
        node = _Node(ids, start, sequence, parent)
        self._children_of(parent, key)[ids[0]] = node
        self._nodes[node] = key
        self._count(node, windows=windows)
        return node

    def _count(self, node: _Node, *, windows: bool) -> None:
        """Count a node's blocks anew, with or without those in windows, and those of its children."""
        if not windows:
            self._engine.forget_windows(node.sequence)
        node.windows = windows
        for one in (node, *node.children.values()):
            shares = one.parent is None or one.parent.windows
            self.blocks -= one.blocks
            one.blocks = self.kv.held(one.end, one.start, windows=one.windows, shares=shares)
            self.blocks += one.blocks

    def _split(self, node: _Node, length: int, key: tuple[int, ...]) -> _Node:
        """Put a node with the first `length` tokens of a node above it, and return that."""
        end = node.start + length
        upper = self._engine.fork(node.sequence)
        self._engine.truncate(upper, end)
        whole = self._engine.resumable(upper, end) == end
        above = self._add(upper, node.ids[:length], node.start, node.parent, key, windows=whole)
        above.scores, above.top = node.scores[:length], node.top
        above.children[node.ids[length]] = node
        node.ids, node.start, node.parent = node.ids[length:], end, above
        node.scores = node.scores[length:]
        self._count(node, windows=node.windows)
        return above

    def _thin(self, leaf: _Node) -> bool:
        """Free the windows of a node above the only leaf; return False if there are others, or no windows."""
        above = leaf.above
        if not self.kv.windowed or len(above) + 1 < len(self._nodes):
            return False
        first = next((node for node in reversed(above) if node.windows), None)
        if first is not None:
            self._count(first, windows=False)
        return first is not None

    def _children_of(self, node: _Node | None, key: tuple[int, ...]) -> dict[int, _Node]:
        return self._roots.setdefault(key, {}) if node is None else node.children

    def _touch(self, node: _Node) -> None:
        """Note the use of a node; its ancestors come later in the order, so that the oldest is a leaf."""
        for one in (node, *node.above):
            self._nodes.move_to_end(one)

    def _remove(self, leaf: _Node) -> None:
        key = self._nodes.pop(leaf)
        children = self._children_of(leaf.parent, key)
        del children[leaf.ids[0]]
        if leaf.parent is None and not children:
            del self._roots[key]
        self.blocks -= leaf.blocks
        with contextlib.suppress(IndexError):  # the engine has dropped it
            self._engine.drop(leaf.sequence)


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens that two sequences have in common from the start.

    >>> common_length([1, 2, 3], [1, 2, 4, 5])
    2
    """
    if one == other:  # of two tuples, many times as fast
        return len(one)
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
