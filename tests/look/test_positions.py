"""The talk's page 20: facts, the position matrix, the two sentences about mice; and rotary models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.errors import BadInput
from pophood.look.math.first_block import last_attention, rows_before
from pophood.look.views.positions import PositionsView
from pophood.look.words import MICE
from tests.look.talk_shape import overlapping, smallest_text, talk_model
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return talk_model(tmp_path_factory)


@pytest.fixture(scope="module")
def view(talk: pophood.LM) -> PositionsView:
    return look.positions(talk)


def test_the_talks_page_20(view: PositionsView) -> None:
    assert view.facts.splitlines() == [
        "Context window: 1024",
        "Embedding dimension: 768",
        "Position embedding matrix: (1024, 768)",
    ]
    assert MICE == ("the cat chased the mouse", "the mouse chased the cat")
    assert view.order.tokens == (
        ("the", " cat", " chased", " the", " mouse"),
        ("the", " mouse", " chased", " the", " cat"),
    )


def test_the_map_of_many_positions_is_thinned(view: PositionsView) -> None:
    assert view.learned is not None and view.learned.curve.shape == (1024, 3)
    assert view.learned.places.tolist() == list(range(0, 1024, 4))
    assert view.learned.similarity.shape == (256, 256) and len(view.tables()["curve"]) == 1024


def test_the_curve_and_the_map_are_numpys(small: pophood.LM) -> None:
    view = look.positions(small)
    assert view.learned is not None
    matrix = small.weights["transformer.wpe.weight"].astype(np.float64)
    squares = np.linalg.eigvalsh(np.cov(matrix.T, bias=True))[::-1]
    assert view.learned.explained == pytest.approx(tuple(squares[:3] / squares.sum()))
    assert view.learned.curve.var(0) == pytest.approx(squares[:3])
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    assert view.learned.similarity == pytest.approx(unit @ unit.T)


def test_mice_without_positions_are_the_same_set(small: pophood.LM) -> None:
    order = look.positions(small).order
    assert order.same_row == (True, False, True, True, False)
    assert (order.with_positions.shared_rows, order.without.shared_rows) == (3, 5)
    assert order.without.end < 1e-12 < 1e-2 < order.with_positions.end
    first, second = (
        rows_before(small.weights, small.config, tuple(small.tokenize(text)), False) for text in MICE
    )
    assert not np.array_equal(first, second)
    assert np.array_equal(first[np.lexsort(first.T)], second[np.lexsort(second.T)]), "sorted: one matrix"
    assert "the position vectors set to zero" in order.verdict
    chased = [tuple(small.tokenize(text))[:3] for text in MICE]
    one, other = (last_attention(small.weights, small.config, ids, False)[1] for ids in chased)
    assert order.inside == 2 and order.without.inside == np.abs(one - other).max() > 1e-2
    assert order.left is not None and "' chased' (position 2)" in order.left
    assert order.table().columns == ("measured", "with_positions", "positions_set_to_zero")


@pytest.mark.parametrize("family", ["gpt2", "llama", "llama-untied", "qwen2", "qwen3"])
def test_block_0_by_hand_is_the_engines(family: str, tmp_path: Path) -> None:
    lm = pophood.load(tiny_folder(tmp_path / family, family, seed=5))
    ids = tuple(lm.tokenize("the cat chased the mouse."))
    trace = lm.trace(ids, ["blocks.0.attn.pattern", "blocks.0.attn.out"])
    pattern, out = last_attention(lm.weights, lm.config, ids, True)
    assert pattern == pytest.approx(trace["blocks.0.attn.pattern"][:, -1], abs=2e-6)
    scale = np.abs(out).max()
    assert out / scale == pytest.approx(trace["blocks.0.attn.out"][-1] / scale, abs=1e-5)
    without = last_attention(lm.weights, lm.config, ids, False)[1]
    assert np.abs(without - out).max() > 1e-2 * scale


def test_rotary_scores_depend_on_distance_alone(rotary: pophood.LM) -> None:
    view = look.positions(rotary)
    assert view.learned is None and view.rotary is not None and rotary.config.rope is not None
    assert view.facts.endswith("Position embedding matrix: none (rotary)")
    frequencies = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
    assert view.rotary.frequencies == pytest.approx(frequencies, rel=1e-6)
    assert view.rotary.cosines == pytest.approx(np.cos(np.arange(64)[:, None] * frequencies), abs=1e-4)
    assert view.rotary.offsets == (0, 1, 7, 100), "1000 is beyond this model's window"
    assert view.rotary.scores.shape == (4, 65) and view.rotary.spread < 1e-12
    assert np.ptp(view.rotary.scores[0]) > 1e-3, "and on distance they do depend"
    rows = len(rotary.tokenize(MICE[0]))
    assert view.order.with_positions.shared_rows == view.order.without.shared_rows == rows
    assert view.order.without.end < 1e-12 < view.order.with_positions.end
    assert "Nothing is added" in view.notes[0] and "rotary angles set to zero" in view.notes[1]
    distances = view.tables()["distances"]
    assert distances.column("distance") == [0, 1, 2, 4, 8, 16, 32, 64]


def test_scores_at_their_place_are_the_engines(rotary: pophood.LM) -> None:
    """The score of the query at the last token and the key at the second follows from their distance."""
    view = look.positions(rotary)
    assert view.rotary is not None
    ids = rotary.tokenize(MICE[0])
    scores = rotary.trace(ids, ["blocks.0.attn.scores"])["blocks.0.attn.scores"]
    assert scores[0, -1, 1] == pytest.approx(view.rotary.scores[0, len(ids) - 2], abs=1e-4)


@pytest.mark.parametrize("pair", [("a b", "a c"), ("a b", "a b"), ("", "")])
def test_other_words_are_no_other_order(small: pophood.LM, pair: tuple[str, str]) -> None:
    with pytest.raises(BadInput, match="not the same tokens in a different order"):
        look.positions(small, sentences=pair)


def test_a_sentence_longer_than_the_window(small: pophood.LM) -> None:
    words = [f" {word}" for word in ["cat", "mouse"] * 70]
    with pytest.raises(BadInput, match="wanted fewer than 128"):
        look.positions(small, sentences=("the" + "".join(words), "the" + "".join(words[::-1])))


@pytest.mark.parametrize("which", ["small", "rotary"])
def test_the_picture_is_legible(which: str, request: pytest.FixtureRequest) -> None:
    figure = look.positions(request.getfixturevalue(which)).figure("dark")
    assert overlapping(figure) == [] and smallest_text(figure) >= 7
