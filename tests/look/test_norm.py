"""Norms before, normalised and after equal the formula and torch; the talk's pages 24 and 31."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.errors import BadInput
from tests.look.talk_shape import overlapping, smallest_text
from tests.tiny import reference

PROMPT = "The capital of Spain is"


@pytest.mark.parametrize("which", ["ln_1", "ln_2", "final"])
def test_a_layer_norm_is_torchs(small: pophood.LM, which: str) -> None:
    import torch

    view = look.norm(small, PROMPT, layer=1, which=which)
    variances = view.variances
    assert np.abs(view.means[1]).max() < 1e-5
    assert np.allclose(variances[1], variances[0] / (variances[0] + view.epsilon), rtol=1e-4)
    assert variances[1] == pytest.approx(1, abs=2e-3)
    assert view.shift is not None
    before, gain, shift = (torch.tensor(array.copy()) for array in (view.before, view.gain, view.shift))
    normalised = torch.nn.functional.layer_norm(before, (64,), eps=view.epsilon)
    after = torch.nn.functional.layer_norm(before, (64,), gain, shift, view.epsilon)
    assert np.abs(view.normalised - normalised.numpy()).max() < 1e-5
    assert np.abs(view.after - after.numpy()).max() < 1e-5
    assert np.abs(view.means[2]).max() > 1e-3, "gain and shift move the mean, as the note says"
    assert any("before gain and shift" in note for note in view.notes)


def test_an_rms_norm_takes_no_mean_off(rotary: pophood.LM) -> None:
    view = look.norm(rotary, PROMPT, layer=-1, which="ln_2")
    assert view.layer == 2 and view.shift is None and view.kind == "rms"
    squares = np.square(view.before.astype(np.float64)).mean(-1, keepdims=True)
    assert np.abs(view.normalised - view.before / np.sqrt(squares + view.epsilon)).max() < 1e-5
    assert np.abs(view.after - view.normalised * view.gain).max() < 1e-5
    assert view.mean_squares[1] == pytest.approx(1, abs=1e-3)
    assert np.abs(view.means[1]).max() > 1e-3
    assert "RMS" in view.title and "the mean is not subtracted" in view.notes[0]
    assert "shift" not in view.tables()["parameters"].column("learned")


def test_the_final_norm_is_transformers_last_state(small: pophood.LM, small_folder: Path) -> None:
    import torch

    view = look.norm(small, PROMPT, which="final")
    with torch.no_grad():
        wanted = reference(small_folder).transformer(torch.tensor([view.source.ids])).last_hidden_state
    assert view.layer is None and np.abs(view.after - wanted[0].numpy()).max() < 1e-4


def test_three_rows_per_token(small: pophood.LM) -> None:
    view = look.norm(small, PROMPT)
    table = view.tables()["statistics"]
    assert len(table) == 15 and table.column("stage")[:3] == ["before", "normalised", "after"]
    assert table[4]["token_text"] == " capital" and table[4]["variance"] == float(view.variances[1, 1])
    assert "normalised: mean 0.00, variance 1.00" in view.alt
    assert view.arrays()["gain"].shape == (64,)


def test_refusals_list_what_exists(small: pophood.LM) -> None:
    with pytest.raises(BadInput, match=r"'ln_3'; the norms are ln_1, ln_2, final"):
        look.norm(small, PROMPT, which="ln_3")
    with pytest.raises(BadInput, match=r"no layer 4: .* has layers 0\.\.3"):
        look.norm(small, PROMPT, layer=4)
    with pytest.raises(BadInput, match=r"no layer -5"):
        look.norm(small, PROMPT, layer=-5)


def test_the_picture(small: pophood.LM) -> None:
    figure = look.norm(small, PROMPT).figure()
    assert not overlapping(figure) and smallest_text(figure) >= 7
    assert len(figure.axes) == 3
