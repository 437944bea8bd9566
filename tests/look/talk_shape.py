"""Shared by the tests of the talk's pages: a model of GPT-2's widths, models without weights, overlaps."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import pophood
from pophood.config import ModelConfig
from tests.tiny import gpt2_config, tiny_folder


def talk_model(factory: pytest.TempPathFactory) -> pophood.LM:
    """Return a model with random weights, one block, 768 features, 1024 positions and the real vocabulary."""
    return _loaded(factory.getbasetemp() / "talk-shape")


@functools.cache
def _loaded(folder: Path) -> pophood.LM:
    return pophood.load(tiny_folder(folder, "gpt2", **asdict(gpt2_config("gpt2")) | {"n_layer": 1}))


def without_weights(config: ModelConfig, name: str) -> pophood.LM:
    """The parts of a model that views of the configuration need."""
    engine = SimpleNamespace(precision="f32")
    model = SimpleNamespace(config=config, name=name, n_params=config.n_params, engine=engine)
    return cast("pophood.LM", model)


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Return pairs of visible texts whose boxes share more than half a pixel each way."""
    unseen = _out_of_view(figure)
    found = [text for text in _texts(figure) if text not in unseen]
    boxes = [(text.get_text(), text.get_window_extent()) for text in found]
    pairs = []
    for i, (name, box) in enumerate(boxes):
        for other_name, other in boxes[:i]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            if wide > 0.5 and high > 0.5:
                pairs.append((other_name, name))
    return pairs


def _out_of_view(figure: Figure) -> list[Text]:
    """Return labels of ticks beyond the ends of their axis, which matplotlib makes and does not draw."""
    labels = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            beyond = [tick for tick in ticks if not low <= tick.get_loc() <= high]
            labels += [label for tick in beyond for label in (tick.label1, tick.label2)]
    return labels


def smallest_text(figure: Figure) -> float:
    """Return the size of the smallest visible text, in points."""
    return min(float(text.get_fontsize()) for text in _texts(figure))


def _texts(figure: Figure) -> list[Text]:
    texts = cast("list[Text]", figure.findobj(Text))
    return [text for text in texts if text.get_visible() and text.get_text().strip()]
