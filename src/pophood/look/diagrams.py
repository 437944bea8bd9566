"""The figures of `architecture`, `tokens` and `norm` as data: a diagram, split texts, ranges of tokens."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from pophood.config import BlockAttention, ModelConfig
from pophood.look.source import model_title
from pophood.look.views.architecture import ArchitectureView
from pophood.look.views.norm import NormView
from pophood.look.views.tokens import Cut, TokensView
from pophood.phrases import phrase
from pophood.table import count

Figure = dict[str, Any]


def architecture_figure(view: ArchitectureView) -> Figure:
    """Return the model as a diagram: stacks of steps, one block in detail, and how the blocks attend."""
    sums = {str(name): addition for name, addition in view.sums.items()}
    stacks = []
    for name, boxes in groupby(view.boxes, key=lambda box: box.stack):
        steps = [
            {"title": box.title, "weights": box.weights, "output": box.output, "parameters": box.parameters}
            for box in boxes
        ]
        stacks.append(
            {"name": phrase(name), "in_block": name in sums, "adds": sums.get(name, ""), "steps": steps}
        )
    config = view.config
    return {
        "kind": "diagram",
        "title": phrase("From token ids to probabilities: {model}", model=model_title(view.source.model)),
        "stream": phrase("the stream: (T, {features})", features=config.n_embd),
        "block": view.block_line,
        "stacks": stacks,
        "blocks": [attention_words(config, block) for block in config.block_attention],
    }


def attention_words(config: ModelConfig, block: BlockAttention) -> str:
    """Return the tokens that a block's attention sees, and how it marks positions, in words."""
    window = block.window
    seen = (
        phrase("all tokens before") if window is None else phrase("the last {window:,} tokens", window=window)
    )
    if config.rope is None:
        return seen
    if block.rope is None:
        return phrase("{seen}, no rotation", seen=seen)
    return phrase("{seen}, rotary positions (base {theta:,.0f})", seen=seen, theta=block.rope.theta)


def tokens_figures(view: TokensView) -> list[Figure]:
    """Return each text split into its tokens; for several texts, first how many tokens each takes."""
    split: list[Figure] = [
        {
            "kind": "split",
            "title": f"{phrase(cut.label)}: {count(cut.count, 'token')}"
            if len(view.cuts) > 1
            else view.title,
            "tokens": [{"text": text, "id": id_} for text, id_ in zip(cut.tokens, cut.ids, strict=True)],
        }
        for cut in view.cuts
    ]
    if len(view.cuts) == 1:
        return split
    counts = {
        "kind": "bars",
        "title": phrase("Tokens of each text"),
        "labels": [_label(cut) for cut in view.cuts],
        "values": [float(cut.count) for cut in view.cuts],
        "unit": phrase("tokens"),
    }
    return [counts, *split]


def _label(cut: Cut) -> str:
    """Return a language, or a number with the beginning of its text."""
    return f"{cut.label}: {cut.text}" if cut.label.isdigit() else phrase(cut.label)


def norm_figure(view: NormView) -> Figure:
    """Return range, inner 90 %, median and mean of every token's features before, between and after."""
    middle = phrase("mean 0, variance 1") if view.kind == "layer" else phrase("root mean square 1")
    shift = phrase("and shift") if view.shift is not None else phrase("(no shift)")
    names = (
        phrase("before"),
        phrase("normalised: {middle}", middle=middle),
        phrase("after gain {shift}", shift=shift),
    )
    panels = []
    for stage, name in enumerate(names):
        rows = [[float(f"{value:.6g}") for value in row] for row in view.quantiles(stage).T]
        means = [float(f"{value:.6g}") for value in view.means[stage]]
        panels.append({"title": name, "quantiles": rows, "means": means})
    return {
        "kind": "ranges",
        "title": phrase(
            "Each token's {features:,} features: {place}", features=view.before.shape[1], place=view.place
        ),
        "labels": list(view.source.tokens),
        "quantiles": [phrase("smallest"), "5 %", phrase("median"), "95 %", phrase("largest")],
        "panels": panels,
        "unit": phrase("value of a feature"),
    }
