"""The logit lens equals transformers' hidden states through its own final norm and output matrix."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pophood
from pophood import look
from pophood.errors import BadInput
from pophood.look.blocks import Heat
from pophood.look.views.lens import _thinned
from tests.look.seen import ODD, faults
from tests.tiny import reference

PROMPT = "The capital of Spain is"


@pytest.mark.parametrize("which", ["small", "rotary"])
def test_every_row_is_that_of_transformers(which: str, request: pytest.FixtureRequest) -> None:
    import torch

    folder: Path = request.getfixturevalue(f"{which}_folder")
    lm: pophood.LM = request.getfixturevalue(which)
    view = look.lens(lm, PROMPT, token=5, position=2)
    oracle, ids = reference(folder), torch.tensor([lm.tokenize(PROMPT)])
    with torch.no_grad():
        hidden = oracle(ids, output_hidden_states=True).hidden_states
        norm = oracle.transformer.ln_f if which == "small" else oracle.model.norm
        for layer in range(lm.config.n_layer):
            last = layer == lm.config.n_layer - 1  # transformers stores it after the norm
            logits = oracle.lm_head(hidden[-1] if last else norm(hidden[layer + 1]))[0]
            probabilities = torch.softmax(logits.double(), -1)
            assert view.guesses[layer].tolist() == logits.argmax(-1).tolist()
            assert np.abs(view.logits[layer] - logits.max(-1).values.numpy()).max() <= 1e-3
            assert np.abs(view.probabilities[layer] - probabilities.max(-1).values.numpy()).max() <= 1e-4
            assert view.chances[layer] == pytest.approx(float(probabilities[2, 5]), abs=1e-4)
            assert view.ranks[layer] == 1 + int((logits[2] > logits[2, 5]).sum())
    assert view.difference <= 1e-3 and "within 0.001" in view.notes[1]


def test_the_last_row_is_what_next_says(small: pophood.LM) -> None:
    view, table = look.lens(small, PROMPT), small.next(PROMPT)
    assert view.guesses[-1, -1] == table[0]["token_id"] == view.target and not view.chosen
    assert view.probabilities[-1, -1] == pytest.approx(table[0]["probability"], rel=1e-4)
    assert view.ranks[-1] == 1
    assert view.chances[-1] == pytest.approx(view.probabilities[-1, -1], rel=1e-4)
    chosen = look.lens(small, PROMPT, token=" Madrid")
    assert chosen.target == 14_708 and chosen.target_text == " Madrid" and chosen.chosen


def test_long_texts_are_thinned_and_rows_are_few(small: pophood.LM) -> None:
    text = PROMPT * 20
    length = len(small.tokenize(text))
    tracemalloc.start()
    view = look.lens(small, text, most=24, position=7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length > 90 and len(view.positions) == 24 == view.guesses.shape[1]
    assert view.positions[0] == 0 and view.positions[-1] == length - 1 and 7 in view.positions
    assert f"24 of {length} positions" in view.notes[-1]
    assert peak < 60e6, "4 x 24 rows of V floats alone would be 19 MB; 4 x 100 of them 80"
    whole = look.lens(small, text, most=1000, position=7)
    assert len(whole.positions) == length and len(whole.notes) == 2
    assert np.array_equal(whole.guesses[:, list(view.positions)], view.guesses)
    assert np.allclose(whole.chances, view.chances, rtol=1e-4)


@given(length=st.integers(1, 400), most=st.integers(2, 60), data=st.data())
def test_thinning_keeps_the_ends(length: int, most: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, length - 1))
    places = _thinned(length, most, wanted)
    assert len(places) == min(length, most) == len(set(places))
    assert list(places) == sorted(places) and places[-1] == length - 1 and wanted in places


def test_tables_and_map(small: pophood.LM) -> None:
    view = look.lens(small, PROMPT)
    blocks = view.tables()["blocks"]
    assert len(blocks) == 4 and blocks.columns[:5] == (
        "block",
        "guess_id",
        "guess_text",
        "logit",
        "probability",
    )
    assert blocks[3]["guess_id"] == view.target
    heat = view.picture()[1]
    assert isinstance(heat, Heat) and heat.rows[0] == "block 3" and heat.columns[0] == "The"
    assert np.array_equal(heat.values[0], view.probabilities[-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"token": "Madrid"},
            "'Madrid' is not one token but the 2 tokens 'Mad', 'rid'; ' Madrid', with the space",
        ),
        ({"token": "sister"}, "'s', 'ister'"),
        ({"token": ""}, "'' is not one token"),
        ({"token": 50_257}, r"token id 50257 is not in the vocabulary: wanted 0\.\.50,256"),
        ({"position": 5}, r"there is no token 5: .* has tokens 0\.\.4"),
        ({"most": 1}, "most must be at least 2"),
    ],
)
def test_one_line_for_each_mistake(small: pophood.LM, options: dict[str, int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        look.lens(small, PROMPT, **options)


def test_on_the_real_model(smol: pophood.LM) -> None:
    """Madrid climbs to the top over the last blocks."""
    view = look.lens(smol, token=" Madrid")
    assert view.ranks[-1] == 1 and view.settled is not None and view.difference <= 1e-3
    late = view.ranks[22:].tolist()
    assert late[0] > 1000 and all(after < before for before, after in itertools.pairwise(late[3:]))
    assert '" Madrid" is the guess from block' in view.title


@pytest.mark.parametrize("text", [ODD, PROMPT * 20], ids=len)
def test_the_picture_is_legible(small: pophood.LM, text: str) -> None:
    assert not faults(look.lens(small, text).figure("dark"))
