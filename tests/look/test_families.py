"""Every view on every family: what views compute by hand is what the engine computes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.errors import BadInput, Unsupported
from pophood.look.math.first_block import last_attention
from pophood.look.math.permutation import compare
from pophood.look.views.norm import norms_of
from pophood.look.words import MICE
from tests.look.talk_shape import overlapping, smallest_text
from tests.made_families import MADE, made_folder

TEXT = "The sun sets over the hills, and the old stones wait for rain."  # longer than the windows
WITHOUT_TEXT = ("architecture", "parameters", "scale", "embeddings", "positions")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pophood.LM]:
    """Each family, loaded once."""
    made: dict[str, pophood.LM] = {}

    def load(family: str) -> pophood.LM:
        if family not in made:
            folder = made_folder(tmp_path_factory.mktemp(family) / family, family)
            made[family] = pophood.load(folder, threads=1)
        return made[family]

    return load


@pytest.mark.parametrize("family", MADE)
def test_what_views_compute_is_what_the_engine_computes(
    family: str, opened: Callable[[str], pophood.LM]
) -> None:
    lm = opened(family)
    for layer in range(lm.config.n_layer):
        assert max(look.attention(lm, TEXT, layer=layer).steps.differences) < 1e-4, layer
        assert max(look.feedforward(lm, TEXT, layer=layer).differences) < 1e-4, layer
    assert look.output(lm, TEXT).difference < 1e-5
    assert look.lens(lm, TEXT).difference < 1e-5
    assert look.residual(lm, TEXT).errors.max() < 1e-5
    assert look.before(lm, TEXT).difference < 1e-6
    assert look.parameters(lm).total == lm.config.n_params
    boxes = look.architecture(lm).boxes
    block = sum(box.parameters for box in boxes if box.stack in ("attention", "feed-forward"))
    others = sum(box.parameters for box in boxes) - block
    assert others + block * lm.config.n_layer == lm.config.n_params
    ids = tuple(lm.tokenize(MICE[0]))
    attention = last_attention(lm.weights, lm.config, ids, True, lm.engine.context)[1]
    assert np.abs(attention - lm.trace(ids, ["blocks.0.attn.out"])["blocks.0.attn.out"][-1]).max() < 1e-4


@pytest.mark.parametrize("family", MADE)
def test_every_view_has_words_and_tables(family: str, opened: Callable[[str], pophood.LM]) -> None:
    lm = opened(family)
    for name in look.VIEWS:
        text: list[Any] = [] if name in WITHOUT_TEXT else [[TEXT, "rain"]] if name == "tokens" else [TEXT]
        view = getattr(look, name)(lm, *text)
        assert view.headline and view.alt and view.tables() and view.picture(), name
        assert all("\n" not in note for note in view.notes), name
        assert look.figure_data(view)["kind"], name
        assert all(values.size for values in view.arrays().values()), name


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "gpt_neox"])
def test_every_norm_is_the_engines(family: str, opened: Callable[[str], pophood.LM]) -> None:
    lm = opened(family)
    for which in norms_of(lm.config):
        view = look.norm(lm, TEXT, layer=1, which=which)
        tap = {"ln_1_post": "blocks.1.attn.out", "ln_2_post": "blocks.1.mlp.out", "final": "final_norm"}
        name = tap.get(which, f"blocks.1.{which}")
        assert np.abs(view.after - lm.trace(view.source.ids, [name])[name]).max() < 1e-4, which
        squares = view.mean_squares if view.kind == "rms" else view.variances
        assert squares[1] == pytest.approx(1, abs=1e-3), which
    if family == "olmo2":
        with pytest.raises(BadInput, match="no norm 'ln_1'; the norms are ln_1_post, ln_2_post, final"):
            look.norm(lm, TEXT, which="ln_1")
        assert "ln_1_post of block 0, after its attention" in look.norm(lm, TEXT).headline


def test_attention_draws_the_window(opened: Callable[[str], pophood.LM]) -> None:
    lm = opened("gemma2")
    narrow, wide = (look.attention(lm, TEXT, layer=layer) for layer in (0, 1))
    rows, keys = np.indices(narrow.visible(0).shape)
    assert np.array_equal(np.isnan(narrow.visible(0)), (keys > rows) | (keys <= rows - 16))
    assert np.array_equal(np.isnan(wide.visible(0)), keys > rows)
    (stack,) = look.figures_data(narrow)
    weights = np.frombuffer(base64.b64decode(stack["halves"]), "<f2").reshape(4, 4, *rows.shape)
    for layer, shown in ((0, narrow), (1, wide)):
        assert np.array_equal(np.isnan(weights[layer]), np.isnan([shown.visible(h) for h in range(4)]))
    assert any("itself and the 15 tokens before it" in note for note in narrow.notes)
    assert "before the window of 16 tokens" in narrow.alt and "window" not in wide.alt
    assert "capped at 3" in str(narrow.tables()["steps"].rows[0])
    assert any("does not rotate" in note for note in look.attention(opened("smollm3"), TEXT, layer=3).notes)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("gemma3", ("multiplier", "RMS norm", "In blocks 0, 1, 2, 3, 4, 6, a token sees 16 tokens")),
        ("gemma2", ("cap", "3 tanh(x / 3)", "5 tanh(x / 5)")),
        ("granite", ("x 12", "x 0.4", "/ 3", "Scores are multiplied by 0.1")),
        ("gpt_neox", ("(4 of 16)", "X_new = X + dX (attention) + dX (feed-forward)")),
        ("smollm3", ("In block 3, queries and keys are not rotated",)),
        ("olmo2", ("gains 64 and 32",)),
    ],
)
def test_diagrams_have_what_models_have(
    family: str, words: tuple[str, ...], opened: Callable[[str], pophood.LM]
) -> None:
    view = look.architecture(opened(family))
    drawn = view.diagram()
    said = "\n".join([drawn, *view.notes])
    assert [word for word in words if word not in said] == []
    assert max(map(len, drawn.splitlines())) < 80
    inside = [line for line in drawn.splitlines() if line.startswith("│ ") and line.endswith("│ │")]
    assert len({len(line) for line in inside}) == 1
    first, last = (next(i for i, box in enumerate(view.boxes) if box.title == t) for t in ("query", "down"))
    before, after = view.boxes[first - 1].title == "RMS norm", view.boxes[last + 1].title == "RMS norm"
    assert (before, after) == {"gemma2": (True, True), "gemma3": (True, True), "olmo2": (False, True)}.get(
        family, (family != "gpt_neox", False)
    )


@pytest.mark.parametrize("family", ["gpt_neox", "gemma2"])
def test_the_picture_of_the_diagram_is_legible(family: str, opened: Callable[[str], pophood.LM]) -> None:
    figure = look.architecture(opened(family)).figure("light")
    assert overlapping(figure) == [] and smallest_text(figure) >= 7


def test_positions_say_what_they_cannot_show(tmp_path: Path, opened: Callable[[str], pophood.LM]) -> None:
    with pytest.raises(Unsupported, match="block 0 sees 16: shorten the text"):
        compare(opened("mistral"), (f"{MICE[0]} over the hills", f"{MICE[1]} over the hills"))
    folder = made_folder(tmp_path / "still", "smollm3", no_rope_layers=[0, 1, 1, 1, 1])
    with pytest.raises(Unsupported, match=r"block 0 of this smollm3, .* does not rotate") as caught:
        look.positions(pophood.load(folder, threads=1))
    assert "\n" not in str(caught.value)
    view = look.positions(opened("gemma3"))
    assert any("blocks 5 have others" in note for note in view.notes)
