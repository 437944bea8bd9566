"""Feed-forward: steps, activations, neurons and promoted tokens against NumPy and torch; page 29."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood import look
from pophood.errors import BadInput
from pophood.look.math.activations import ACTIVATIONS, gelu_difference
from pophood.look.views.feedforward import FeedForwardView
from tests.look.talk_shape import overlapping, smallest_text, talk_model

Reals = NDArray[np.float64]
PROMPT = "The capital of Spain is"


def test_both_gelus_and_silu_are_torchs() -> None:
    import torch

    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    wanted = {
        "gelu_tanh": torch.nn.functional.gelu(x, approximate="tanh"),
        "gelu": torch.nn.functional.gelu(x),
        "silu": torch.nn.functional.silu(x),
    }
    for name, function in ACTIVATIONS.items():
        assert np.abs(function(x.numpy()) - wanted[name].numpy()).max() < 1e-12, name


def test_the_talks_difference_of_the_two_forms() -> None:
    largest, place = gelu_difference()
    assert largest == pytest.approx(4.7e-4, abs=0.05e-4) and place == pytest.approx(2.7, abs=0.05)


def test_the_talks_sizes_and_curve(tmp_path_factory: pytest.TempPathFactory) -> None:
    view = look.feedforward(talk_model(tmp_path_factory))
    assert view.sizes == "768 -> 3,072 -> 768" and view.sizes in view.title
    steps = view.tables()["steps"]
    assert steps.column("shape") == ["(5, 768)", "(5, 3072)", "(5, 3072)", "(5, 768)"]
    assert "tanh form" in view.notes[0] and "4.7e-04" in view.notes[0] and "|x| = 2.7" in view.notes[0]
    assert max(view.differences) <= 1e-4


@pytest.mark.parametrize(("which", "steps"), [("small", 3), ("rotary", 4)])
def test_every_step_in_numpy_is_the_engines(which: str, steps: int, request: pytest.FixtureRequest) -> None:
    lm: pophood.LM = request.getfixturevalue(which)
    view = look.feedforward(lm, PROMPT, layer=1)
    assert len(view.differences) == steps and max(view.differences) <= 1e-4
    down = lm.weights["blocks.1.mlp.down.weight"]
    out = view.activations @ down.T
    out = out + lm.weights["blocks.1.mlp.down.bias"] if lm.config.mlp_bias else out
    assert np.abs(out - lm.trace(PROMPT)["blocks.1.mlp.out"]).max() <= 1e-4
    assert np.array_equal(view.active, (view.before > 0).mean(1, dtype=np.float64).astype(np.float32))


@pytest.mark.parametrize("which", ["small", "rotary"])
def test_strongest_neurons_and_what_they_promote(which: str, request: pytest.FixtureRequest) -> None:
    lm: pophood.LM = request.getfixturevalue(which)
    view = look.feedforward(lm, PROMPT, layer=-1, token=3)
    assert view.token == 3
    down = lm.weights[f"blocks.{view.layer}.mlp.down.weight"]
    lengths = np.linalg.norm(down * view.activations[3], axis=0)
    assert [neuron.number for neuron in view.neurons] == np.argsort(-lengths, kind="stable")[:10].tolist()
    first = view.neurons[0]
    assert first.length == pytest.approx(lengths.max(), rel=1e-5)
    gained = logits_with_and_without(lm, view, first.number)
    best = np.argsort(-gained, kind="stable")[:4]
    spell = lm.bundle.tokenizer.token_text
    assert [text for text, _ in first.promoted] == [spell(int(i)) for i in best]
    assert [gain for _, gain in first.promoted] == pytest.approx(gained[best].tolist(), rel=1e-3, abs=1e-5)


def logits_with_and_without(lm: pophood.LM, view: FeedForwardView, neuron: int) -> Reals:
    """Return the change of the logits without a neuron of the last block, the final norm's scale fixed."""
    end = f"blocks.{lm.config.n_layer - 1}"
    added = lm.weights[f"{end}.mlp.down.weight"][:, neuron] * view.activations[view.token, neuron]
    hidden = lm.trace(PROMPT)[f"{end}.resid_post"][view.token].astype(np.float64)
    matrix = lm.weights["embed.token" if lm.config.tied_output else "output.weight"].astype(np.float64)
    layer_norm = lm.config.norm == "layer"
    scale = np.sqrt((hidden.var() if layer_norm else np.square(hidden).mean()) + lm.config.norm_eps)

    def logits(state: Reals) -> Reals:
        centred = state - state.mean() if layer_norm else state
        result: Reals = matrix @ (centred / scale * lm.weights["final_norm.weight"])
        return result

    return logits(hidden) - logits(hidden - added)


def test_a_gated_layer_is_said_and_drawn(rotary: pophood.LM) -> None:
    view = look.feedforward(rotary, PROMPT)
    assert "SiLU" in view.notes[0] and "gate" in view.notes[1]
    assert view.tables()["steps"].column("step") == ["ln_2", "gate", "up", "silu", "down"]
    figure = view.figure("dark")
    assert not overlapping(figure) and smallest_text(figure) >= 7
    legends = [legend for axes in figure.axes if (legend := axes.get_legend()) is not None]
    assert "SiLU: used here" in [text.get_text() for legend in legends for text in legend.get_texts()]


def test_tables_words_and_picture(small: pophood.LM) -> None:
    view = look.feedforward(small, PROMPT)
    tables = view.tables()
    assert len(tables["neurons"]) == 10 and len(tables["active"]) == 5
    assert tables["neurons"][0]["promotes_1"] == view.neurons[0].promoted[0][0]
    assert f"neuron {view.neurons[0].number}" in view.alt and '"is"' in view.title
    figure = view.figure()
    assert not overlapping(figure) and smallest_text(figure) >= 7


def test_refusals_list_what_exists(small: pophood.LM) -> None:
    with pytest.raises(BadInput, match=r"no token 5: the text \(0 'The', .*4 ' is'\) has tokens 0\.\.4"):
        look.feedforward(small, PROMPT, token=5)
    with pytest.raises(BadInput, match=r"no layer 7: .* has layers 0\.\.3"):
        look.feedforward(small, PROMPT, layer=7)
