"""Taps: the intermediate arrays of a forward pass that can be read: their names, axes and shapes.

    embed.token  embed.position  blocks.i.{...}  final_norm.normalized  final_norm  logits

docs/taps.md shows where each tap is. The order below is the order of execution; a tap's number is its value
in the enumeration of native/engine/request.h. The engine reads the arrays.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pophood.config import ModelConfig
from pophood.errors import BadInput

Axes = tuple[str, ...]
FEATURE: Axes = ("token", "feature")  # [T, C]
QUERY: Axes = ("token", "head", "dim")  # [T, H, D]
KEY: Axes = ("token", "kv_head", "dim")  # [T, K, D]
PAIR: Axes = ("token", "head", "key")  # [T, H, S] here; a trace transposes it to ("head", "query", "key")
HEAD: Axes = ("token", "head", "feature")  # [T, H, C]
NEURON: Axes = ("token", "neuron")  # [T, F]
SCORE: Axes = ("token", "vocabulary")  # [T, V]

# name -> (number, axes), before, inside and after the blocks.
_FIRST: dict[str, tuple[int, Axes]] = {"embed.token": (0, FEATURE), "embed.position": (1, FEATURE)}
_BLOCK: dict[str, tuple[int, Axes]] = {
    "resid_pre": (2, FEATURE),
    "ln_1.normalized": (3, FEATURE),
    "ln_1": (4, FEATURE),
    "attn.q": (5, QUERY),
    "attn.k": (6, KEY),
    "attn.v": (7, KEY),
    "attn.rot_q": (8, QUERY),
    "attn.rot_k": (9, KEY),
    "attn.scores": (10, PAIR),
    "attn.pattern": (11, PAIR),
    "attn.z": (12, QUERY),
    "attn.result": (13, HEAD),
    "attn.out": (14, FEATURE),
    "resid_mid": (15, FEATURE),
    "ln_2.normalized": (16, FEATURE),
    "ln_2": (17, FEATURE),
    "mlp.pre": (18, NEURON),
    "mlp.gate": (19, NEURON),
    "mlp.up": (20, NEURON),
    "mlp.post": (21, NEURON),
    "mlp.out": (22, FEATURE),
    "resid_post": (23, FEATURE),
}
_LAST: dict[str, tuple[int, Axes]] = {
    "final_norm.normalized": (24, FEATURE),
    "final_norm": (25, FEATURE),
    "logits": (26, SCORE),
}


@dataclass(frozen=True, slots=True)
class Tap:
    """One tap of one model. The engine identifies it by `number` and `layer`; `axes` names its dimensions."""

    name: str
    number: int
    layer: int
    axes: Axes
    config: ModelConfig

    def shape(self, tokens: int, keys: int) -> tuple[int, ...]:
        """Return its shape for a batch of `tokens` rows that attend to up to `keys` positions."""
        config = self.config
        sizes = {
            "token": tokens,
            "feature": config.n_embd,
            "head": config.n_head,
            "kv_head": config.n_kv_head,
            "dim": config.head_dim,
            "key": keys,
            "neuron": config.n_inner,
            "vocabulary": config.vocab_size,
        }
        return tuple(sizes[axis] for axis in self.axes)

    def nbytes(self, tokens: int, keys: int) -> int:
        """Return the size of its array in bytes."""
        return 4 * math.prod(self.shape(tokens, keys))


@dataclass(frozen=True, slots=True)
class RowReading:
    """Values of one tap at some rows of a batch: [rows, ...], or [rows, keys] of one attention head."""

    tap: Tap
    rows: tuple[int, ...]
    head: int = -1  # of scores or pattern; -1: the whole tap

    def shape(self, keys: int) -> tuple[int, ...]:
        """Return the shape of its array for a batch that attends to up to `keys` positions."""
        return self.tap.shape(len(self.rows), keys) if self.head < 0 else (len(self.rows), keys)


def taps_of(config: ModelConfig) -> dict[str, Tap]:
    """Return every tap of a model by name, in order of execution.

    Example: `list(taps_of(gpt2))[2] == "blocks.0.resid_pre"`.
    """
    absent = {"mlp.gate", "mlp.up"} if not config.gated_mlp else set()
    absent |= {"attn.rot_q", "attn.rot_k"} if config.rope is None else {"embed.position"}
    absent |= {"resid_mid"} if config.parallel else set()
    norms = {"ln_1.normalized", "ln_1", "ln_2.normalized", "ln_2"}
    absent |= norms if config.norm_places == "after" else set()
    blocks = [(f"blocks.{i}.", i, _BLOCK) for i in range(config.n_layer)]
    taps = (
        Tap(prefix + name, number, layer, axes, config)
        for prefix, layer, part in [("", 0, _FIRST), *blocks, ("", 0, _LAST)]
        for name, (number, axes) in part.items()
        if name not in absent
    )
    return {tap.name: tap for tap in taps}


def match_taps(config: ModelConfig, patterns: Sequence[str]) -> list[Tap]:
    """Return the taps that any of the patterns matches, in order of execution.

    `*` matches anything, dots included; a pattern that begins with `!` removes its matches. Names of
    TransformerLens are understood where they mean the same array (`alias`). Raises BadInput for a pattern
    that matches nothing.

    Example: `match_taps(config, ["blocks.*.attn.*", "!*.result"])`.
    """
    if not patterns:
        return []  # a forward pass without taps must not list them all
    known = taps_of(config)
    chosen: set[str] = set()
    for pattern in sorted(patterns, key=lambda pattern: pattern.startswith("!")):
        hits = fnmatch.filter(known, alias(pattern.removeprefix("!")))
        if not hits:
            raise BadInput(f"no tap matches {pattern!r}; {_near(config, known)}")
        chosen = chosen - set(hits) if pattern.startswith("!") else chosen | set(hits)
    return [tap for name, tap in known.items() if name in chosen]


def alias(name: str) -> str:
    """Return the canonical name of a TransformerLens hook, and any other name unchanged.

    >>> alias("blocks.3.attn.hook_pattern"), alias("hook_embed"), alias("blocks.3.attn.pattern")
    ('blocks.3.attn.pattern', 'embed.token', 'blocks.3.attn.pattern')
    """
    if name in _ALIASES:
        return _ALIASES[name]
    head, dot, rest = name.partition(".")
    layer, second, inner = rest.partition(".")
    if head == "blocks" and dot and second and inner in _BLOCK_ALIASES:
        return f"blocks.{layer}.{_BLOCK_ALIASES[inner]}"
    return name


# Hooks of TransformerLens whose arrays tests/look/test_transformer_lens.py shows to be equal (raw weights).
_ALIASES = {
    "hook_embed": "embed.token",
    "hook_pos_embed": "embed.position",
    "ln_final.hook_normalized": "final_norm.normalized",
}
_BLOCK_ALIASES = {
    "hook_resid_pre": "resid_pre",
    "ln1.hook_normalized": "ln_1.normalized",
    "attn.hook_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_rot_q": "attn.rot_q",
    "attn.hook_rot_k": "attn.rot_k",
    "attn.hook_attn_scores": "attn.scores",
    "attn.hook_pattern": "attn.pattern",
    "attn.hook_z": "attn.z",
    "attn.hook_result": "attn.result",
    "hook_attn_out": "attn.out",
    "hook_resid_mid": "resid_mid",
    "ln2.hook_normalized": "ln_2.normalized",
    "mlp.hook_pre": "mlp.pre",
    "mlp.hook_pre_linear": "mlp.up",
    "mlp.hook_post": "mlp.post",
    "hook_mlp_out": "mlp.out",
    "hook_resid_post": "resid_post",
}


def _near(config: ModelConfig, known: dict[str, Tap]) -> str:
    inside = [name.removeprefix("blocks.0.") for name in known if name.startswith("blocks.0.")]
    outside = [name for name in known if not name.startswith("blocks.")]
    last = config.n_layer - 1
    return f"there are: {', '.join(outside)}, and blocks.0 to blocks.{last} with {', '.join(inside)}"
