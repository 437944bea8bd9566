"""The figures of `architecture`, `tokens` and `norm` as data: a diagram, split texts, ranges of tokens."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from pophood.config import BlockAttention, ModelConfig
from pophood.look.source import model_title
from pophood.look.views.architecture import ArchitectureView
from pophood.look.views.norm import NormView
from pophood.look.views.tokens import Cut, TokensView
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
        stacks.append({"name": name, "in_block": name in sums, "adds": sums.get(name, ""), "steps": steps})
    config = view.config
    return {
        "kind": "diagram",
        "title": f"From token ids to probabilities: {model_title(view.source.model)}",
        "stream": f"the stream: (T, {config.n_embd})",
        "block": view.block_line,
        "stacks": stacks,
        "blocks": [attention_words(config, block) for block in config.block_attention],
    }


def attention_words(config: ModelConfig, block: BlockAttention) -> str:
    """Return the tokens that a block's attention sees, and how it marks positions, in words."""
    window = block.window
    seen = "all tokens before" if window is None else f"the last {window:,} tokens"
    if config.rope is None:
        return seen
    if block.rope is None:
        return f"{seen}, no rotation"
    return f"{seen}, rotary positions (base {block.rope.theta:,.0f})"


def tokens_figures(view: TokensView) -> list[Figure]:
    """Return each text split into its tokens; for several texts, first how many tokens each takes."""
    split: list[Figure] = [
        {
            "kind": "split",
            "title": f"{cut.label}: {count(cut.count, 'token')}" if len(view.cuts) > 1 else view.title,
            "tokens": [{"text": text, "id": id_} for text, id_ in zip(cut.tokens, cut.ids, strict=True)],
        }
        for cut in view.cuts
    ]
    if len(view.cuts) == 1:
        return split
    counts = {
        "kind": "bars",
        "title": "Tokens of each text",
        "labels": [_label(cut) for cut in view.cuts],
        "values": [float(cut.count) for cut in view.cuts],
        "unit": "tokens",
    }
    return [counts, *split]


def _label(cut: Cut) -> str:
    """Return a language, or a number with the beginning of its text."""
    return f"{cut.label}: {cut.text}" if cut.label.isdigit() else cut.label


def norm_figure(view: NormView) -> Figure:
    """Return range, inner 90 %, median and mean of every token's features before, between and after."""
    middle = "mean 0, variance 1" if view.kind == "layer" else "root mean square 1"
    shift = "and shift" if view.shift is not None else "(no shift)"
    names = ("before", f"normalised: {middle}", f"after gain {shift}")
    panels = []
    for stage, name in enumerate(names):
        rows = [[float(f"{value:.6g}") for value in row] for row in view.quantiles(stage).T]
        means = [float(f"{value:.6g}") for value in view.means[stage]]
        panels.append({"title": name, "quantiles": rows, "means": means})
    return {
        "kind": "ranges",
        "title": f"Each token's {view.before.shape[1]:,} features: {view.place}",
        "labels": list(view.source.tokens),
        "quantiles": ["smallest", "5 %", "median", "95 %", "largest"],
        "panels": panels,
        "unit": "value of a feature",
    }
