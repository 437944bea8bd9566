"""Attention: one block's five steps, from queries, keys and values to `attn.out`, and its heads' patterns.

The talk's page 27. The steps are computed here in NumPy from the taps q, k and v and the block's weights, and
compared with the engine's results; `math/heads.py` measures what each head does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.look.arguments import checked_index, trace_text
from pophood.look.blocks import Block, Heat
from pophood.look.math.first_block import score_scale
from pophood.look.math.heads import LABELS, NO_LABEL, HeadScores, head_scores, measure_heads
from pophood.look.math.settle import settled, settling
from pophood.look.source import PROMPT, ViewSource, model_title, quoted_token
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.model.trace import Trace
from pophood.phrases import phrase
from pophood.table import Table

Floats = NDArray[np.float32]
MOST_WEIGHTS = 1_500_000  # of all blocks, kept beside the shown block's
RESTING = 0.9  # a head with more of its weight on position 0 gets a note


@dataclass(frozen=True, eq=False)
class Steps:
    """The five steps in NumPy, and the largest |a - b| of each from the engine's result."""

    scores: Floats  # [H, T, T]: before the mask
    masked: Floats  # [H, T, T]: minus infinity for keys after the query, or before the block's window
    pattern: Floats  # [H, T, T]: softmax of each row
    z: Floats  # [T, H, D]: the values weighted by the pattern; concatenated, [T, H * D]
    out: Floats  # [T, C]: the concatenation times W_O (and its bias, and what the model does then)
    differences: tuple[float, float, float, float, float]


@dataclass(frozen=True, eq=False)
class AttentionView(View):
    """One block's attention on a text: the pattern of every head, the five steps, and measured labels."""

    layer: int
    head: int  # the head that is shown large
    config: ModelConfig
    steps: Steps
    probe: HeadScores  # of all heads of the model, on the repeated random text
    here: Floats  # [H, 4]: the scores of this block's heads on this text
    all_patterns: Floats | None = None  # [L, H, T, T]: of every block, unless the text is long

    @property
    def pattern(self) -> Floats:
        """The weight of every query on every key, [H, T, T]; masked ones are exactly 0."""
        return self.steps.pattern

    @property
    def window(self) -> int | None:
        """The number of positions that a token of this block sees; None: all before it."""
        return self.config.block_attention[self.layer].window

    @property
    def _hidden(self) -> str:
        return (
            ""
            if self.window is None
            else phrase("and before the window of {window:,} tokens ", window=self.window)
        )

    def patterns(self) -> tuple[Floats, list[int]]:
        """Return the patterns to choose from, [blocks, H, T, T], and their blocks: all, or the shown one."""
        if self.all_patterns is None:
            return self.pattern[None], [self.layer]
        return self.all_patterns, list(range(len(self.all_patterns)))

    def visible(self, head: int) -> Floats:
        """Return one head's pattern for pictures, [T, T], with NaN for masked cells."""
        pattern: Floats = self.pattern[head].copy()
        pattern[hidden_keys(len(pattern), self.window)] = np.nan
        return pattern

    def strongest(self) -> tuple[int, int, float]:
        """Return query, key and weight of the shown head's largest weight in the last row."""
        row = self.pattern[self.head, -1]
        return len(row) - 1, int(row.argmax()), float(row.max())

    @property
    def headline(self) -> str:
        label = self.probe.label(self.layer, self.head)
        what = (
            phrase("no measured label")
            if label == NO_LABEL
            else phrase("measured as {label}", label=phrase(label))
        )
        return phrase(
            "Attention in block {layer} of {model}: how much each token (row) takes from "
            "itself and earlier tokens (columns); head {head}, {what}",
            layer=self.layer,
            model=model_title(self.source.model),
            head=self.head,
            what=what,
        )

    @property
    def alt(self) -> str:
        query, key, weight = self.strongest()
        labels = [
            phrase("head {head} {label}", head=h, label=phrase(self.probe.label(self.layer, h)))
            for h in range(self.config.n_head)
        ]
        counts = ", ".join(f"{n} {phrase(name)}" for name, n in self.probe.counts().items())
        return phrase(
            "Heat map of head {head}: the last token {token} gives {taken} the largest "
            "weight, {weight:.2f}. Cells above the diagonal {hidden}are masked. Below, all "
            "{heads} heads of block {layer}: {labels}. Then the labels of all {layers} x "
            "{heads} heads: {counts}.",
            head=self.head,
            token=quoted_token(self.source, query),
            taken=quoted_token(self.source, key),
            weight=weight,
            hidden=self._hidden,
            heads=self.config.n_head,
            layer=self.layer,
            labels=", ".join(labels),
            layers=self.config.n_layer,
            counts=counts,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        config = self.config
        notes = [
            phrase(
                '"{heads} different linguists" is an intuition (the talk: 12); here the role '
                "of a head is measured on a random text that repeats. The weight on the first "
                "token, where idle heads rest, is left out; a head gets a label if a third of "
                "the remaining weight fits it (a convention).",
                heads=config.n_head,
            ),
            *self._sink_note(),
            phrase(
                "A weight says how much of a value vector is taken, which is not its "
                "importance for the answer."
            ),
            phrase(
                "Five steps in NumPy give attn.out within {difference:.1e} of the engine.",
                difference=self.steps.differences[-1],
            ),
        ]
        if self.window is not None:
            notes.append(
                phrase(
                    "A token of this block sees itself and the {window:,} tokens before it "
                    "(attention window): cells further left are masked too.",
                    window=self.window - 1,
                )
            )
        if config.rope is not None:
            rotates = config.block_attention[self.layer].rope is not None
            notes.append(
                phrase("Queries and keys are rotated by their positions before they meet (rotary positions).")
                if rotates
                else phrase("This block does not rotate queries and keys, unlike other blocks of the model.")
            )
        if config.n_kv_head < config.n_head:
            notes.append(
                phrase(
                    "{heads} query heads share {shared} heads of keys and values ({each} each).",
                    heads=config.n_head,
                    shared=config.n_kv_head,
                    each=config.n_head // config.n_kv_head,
                )
            )
        return tuple(notes)

    def _sink_note(self) -> tuple[str, ...]:
        """Return a warning if the shown head attends almost entirely to position 0."""
        share = float(self.pattern[self.head, 1:, 0].mean()) if self.pattern.shape[1] > 1 else 0.0
        if share <= RESTING:
            return ()
        return (
            phrase(
                "Head {head} puts {share:.0%} of its weight on position 0 here: it rests on "
                "the first token (an attention sink), and this picture says little about the "
                "text.",
                head=self.head,
                share=share,
            ),
        )

    def tables(self) -> dict[str, Table]:
        """Return `steps`, `weights` (the shown head's last row), `heads` (this block), `labels` (all)."""
        probe = self.probe.values[self.layer]
        here = tuple(phrase("{name}, this text", name=phrase(name)) for name in LABELS)
        heads = tuple(
            (h, phrase(self.probe.label(self.layer, h)), *map(float, probe[h]), *map(float, self.here[h]))
            for h in range(self.config.n_head)
        )
        labels = tuple(
            (layer, h, phrase(self.probe.label(layer, h)), *self.probe.values[layer, h].tolist())
            for layer, h in np.ndindex(self.probe.values.shape[:2])
        )
        tokens, last = self.source.tokens, self.pattern[self.head, -1].tolist()
        weights = tuple(zip(range(len(tokens)), tokens, last, strict=True))
        return {
            "steps": self._steps_table(),
            "weights": Table(
                ("position", "token_text", "weight"),
                weights,
                bars="weight",
                title=phrase("what the last token takes from each token, head {head}", head=self.head),
            ),
            "heads": Table(
                ("head", "label", *LABELS, *here),
                heads,
                title=phrase(
                    "the heads of block {layer}: scores on a repeated random text, and on this one",
                    layer=self.layer,
                ),
                decimals=dict.fromkeys((*LABELS, *here), 3),
            ),
            "labels": Table(
                ("layer", "head", "label", *LABELS),
                labels,
                title=phrase("every head of the model, on a repeated random text"),
                decimals=dict.fromkeys(LABELS, 3),
            ),
        }

    def _steps_table(self) -> Table:
        config, tokens = self.config, self.pattern.shape[1]
        features = config.n_head * config.head_dim
        wide = f"{config.n_head} x {config.head_dim} = {features:,}"
        square, narrow = f"({config.n_head}, {tokens}, {tokens})", f"({tokens}, {config.n_embd})"
        rows = (
            (1, phrase("scores"), _score_words(config), square),
            (
                2,
                phrase("mask"),
                phrase("-inf for later tokens {hidden}", hidden=self._hidden).rstrip(),
                square,
            ),
            (3, "softmax", phrase("each row sums to 1"), square),
            (
                4,
                phrase("concatenation"),
                phrase("weights @ v, heads side by side: {wide}", wide=wide),
                f"({tokens}, {features})",
            ),
            (
                5,
                phrase("projection"),
                phrase(
                    "@ W_O: back to {features:,}{settling}", features=config.n_embd, settling=settling(config)
                ),
                narrow,
            ),
        )
        differences = (f"{d:.1e}" if d else "0" for d in self.steps.differences)
        return Table(
            ("step", "name", "computed", "shape", "difference"),
            tuple((*row, difference) for row, difference in zip(rows, differences, strict=True)),
            title=phrase("five steps in NumPy, and the largest difference from the engine"),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return `scores` (unmasked), `pattern` [head, query, key], `z`, `out`, `head_scores` [L, H, 4]."""
        steps = {name: getattr(self.steps, name) for name in ("scores", "pattern", "z", "out")}
        return {**steps, "head_scores": self.probe.values}

    def picture(self) -> tuple[Block, ...]:
        tokens = self.source.tokens
        title, pattern = (
            phrase("Block {layer}, head {head}", layer=self.layer, head=self.head),
            self.visible(self.head),
        )
        heat = Heat(title, pattern, tokens, tokens, 0.0, 1.0, phrase("attention weight"))
        tables = self.tables()
        short = Table(
            ("head", "label", *LABELS),
            tuple(row[:6] for row in tables["heads"].rows),
            title=phrase("the heads of block {layer}: scores on a repeated random text", layer=self.layer),
            decimals=dict.fromkeys(LABELS, 3),
        )
        weights = [tables["weights"]] if len(tokens) <= 40 else []
        return (heat, *weights, tables["steps"], short)


def attention(
    lm: LM, text: Text = PROMPT, *, layer: int | None = None, head: int | None = None
) -> AttentionView:
    """Show one block's attention on a text; `head` is shown large.

    The default is the most informative head of the model, with the clearest pattern (`math/heads.py`); with
    `layer` alone, the most informative head of that block; with `head` alone, that head of block 0.
    Patterns are [heads, queries, keys]. Layers and heads count from 0, -1 is the last. Raises BadInput for a
    layer or a head that does not exist, OutOfMemory for a text whose patterns do not fit.

        attention(lm, layer=4, head=11).pattern[11]
    """
    config = lm.config
    wanted = None if head is None else checked_index("head", head, config.n_head, f"every block of {lm.name}")
    probe: HeadScores | None = None
    if layer is not None or head is not None:
        index = checked_index("layer", layer or 0, config.n_layer, lm.name)
    else:
        probe = measure_heads(lm)
        index, wanted = probe.most_informative()
    names = [f"attn.{part}" for part in (*_queries_and_keys(config), "v", "scores", "pattern", "z", "out")]
    taps = [f"blocks.{index}.{name}" for name in names]
    every = config.n_layer * config.n_head * len(ViewSource.of(lm, text).ids) ** 2 <= MOST_WEIGHTS
    source, trace = trace_text(lm, text, [*taps, *(["blocks.*.attn.pattern"] if every else [])])
    probe = probe or measure_heads(lm)
    if wanted is None:
        wanted = probe.most_informative(index)[1]
    steps = attention_steps(lm, trace, index)
    here = head_scores(steps.pattern, np.array(source.ids))
    blocks = [f"blocks.{i}.attn.pattern" for i in range(config.n_layer)] if every else []
    patterns = np.stack([trace[name] for name in blocks]) if blocks else None
    return AttentionView(source, index, wanted, config, steps, probe, here, patterns)


def attention_steps(lm: LM, trace: Trace, layer: int) -> Steps:
    """Compute the five steps of one block in NumPy from its taps q, k (after RoPE, if there is one) and v."""
    config, block = lm.config, f"blocks.{layer}.attn"
    query, key = _queries_and_keys(config)
    group = config.n_head // config.n_kv_head  # so many query heads share one key-value head
    q = trace[f"{block}.{query}"]
    k, v = (np.repeat(trace[f"{block}.{name}"], group, axis=1) for name in (key, "v"))
    scores = np.einsum("qhd,khd->hqk", q, k, optimize=True)
    scores = scores * np.float32(score_scale(config))
    if config.score_cap is not None:
        scores = np.float32(config.score_cap) * np.tanh(scores / np.float32(config.score_cap))
    hidden = hidden_keys(len(q), config.block_attention[layer].window)
    masked = np.where(hidden, np.float32(-np.inf), scores).astype(np.float32)
    pattern = np.exp(masked - masked.max(axis=-1, keepdims=True))
    pattern /= pattern.sum(axis=-1, keepdims=True)
    z = np.einsum("hqk,khd->qhd", pattern, v, optimize=True)
    out = z.reshape(len(z), -1) @ lm.weights[f"{block}.out.weight"].T
    if config.attn_out_bias:
        out = out + lm.weights[f"{block}.out.bias"]
    out = settled(lm.weights, config, layer, "attn", out.astype(np.float64)).astype(np.float32)
    engine = trace[f"{block}.scores"]
    seen = ~np.broadcast_to(hidden, engine.shape)
    same_mask = np.array_equal(np.isneginf(engine), np.isneginf(masked))
    differences = (
        _largest(scores[seen], engine[seen]),
        0.0 if same_mask else float("inf"),
        _largest(pattern, trace[f"{block}.pattern"]),
        _largest(z, trace[f"{block}.z"]),
        _largest(out, trace[f"{block}.out"]),
    )
    return Steps(scores, masked, pattern, z, out, differences)


def hidden_keys(tokens: int, window: int | None) -> NDArray[np.bool_]:
    """Return the mask of keys that a query does not see, [T, T]: later ones, and those before its window.

    >>> hidden_keys(3, 2).astype(int).tolist()
    [[0, 1, 1], [0, 0, 1], [1, 0, 0]]
    """
    queries, keys = np.indices((tokens, tokens))
    later: NDArray[np.bool_] = keys > queries
    return later if window is None else later | (keys <= queries - window)


def _score_words(config: ModelConfig) -> str:
    """Return how a score is computed: "q . k / sqrt(64)"."""
    own = config.attention_scale
    words = f"q . k / sqrt({config.head_dim})" if own is None else f"q . k x {own:g}"
    return (
        words
        if config.score_cap is None
        else phrase("{words}, capped at {score_cap:g}", words=words, score_cap=config.score_cap)
    )


def _queries_and_keys(config: ModelConfig) -> tuple[str, str]:
    return ("q", "k") if config.rope is None else ("rot_q", "rot_k")


def _largest(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).max())
