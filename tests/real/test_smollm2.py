"""The small real model, from its GGUF file: its answers, and the likelihood that transformers gives it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from tests import processes
from tests.conftest import ROOT

WIKITEXT = ROOT / "tests" / "data" / "wikitext2" / "valid-20000.txt"
# (characters, window): two windows and a rest; the whole excerpt in the full run.
LENGTHS = [(5_000, 512), pytest.param(20_000, 1024, marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def lm(smollm2: Path) -> pophood.LM:
    return pophood.load(smollm2)


@pytest.fixture(scope="module")
def exact(smollm2: Path) -> pophood.LM:
    """The model with its blocks decoded, as transformers computes it."""
    return pophood.load(smollm2, precision="f32")


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> Any:
    """transformers' own reading of the same file, decoded to f32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    ).eval()


def test_it_is_the_published_model(lm: pophood.LM) -> None:
    config = lm.config
    assert (config.n_layer, config.n_head, config.n_embd, config.n_positions) == (30, 9, 576, 8192)
    assert (config.vocab_size, lm.n_params) == (49_152, 134_515_008)
    assert lm.bundle.licence == "apache-2.0"


def test_the_capital_of_spain(lm: pophood.LM) -> None:
    generation = lm.generate("The capital of Spain is", max_tokens=10, temperature=0)
    assert generation.completion.startswith(" Madrid.")
    assert generation.text == "The capital of Spain is" + generation.completion
    table = lm.next("The capital of Spain is", k=10)
    assert table.columns == ("token_id", "token_text", "logit", "probability")
    assert table[0]["token_text"] == " Madrid"
    probabilities = [float(str(p)) for p in table.column("probability")]
    assert probabilities == sorted(probabilities, reverse=True) and 0.3 < sum(probabilities) <= 1


def test_the_question_that_pophood_suggests_is_answered_correctly(smollm2: Path) -> None:
    """README, `pophood chat --help`, `demo` and `doctor` print these commands for a person to try."""
    from pophood.cli.app import QUESTION
    from pophood.cli.commands.demo import suggestions
    from pophood.cli.commands.doctor import try_it
    from pophood.cli.options.shared import ModelChoice

    choice = ModelChoice("smollm2", "auto", None, None, None)
    pages = [(ROOT / name).read_text("utf-8") for name in ("README.md", "docs/cli.md")]
    printed = ["\n".join(suggestions("pophood", choice, chat=True)), try_it([{"name": "smollm2"}]), *pages]
    lines = {
        line for text in printed for line in text.splitlines() if "pophood chat" in line and QUESTION in line
    }
    assert len(lines) == 4, "each of the four suggests the same question"
    for line in lines:
        words = shlex.split(line[line.index("pophood chat") :], comments=True)
        done = processes.run(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=os.environ | {"POPHOOD_OFFLINE": "1", "POPHOOD_MODELS": str(smollm2.parent.parent)},
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "The capital of Japan is Tokyo.\n"), done.stderr


def test_a_question_is_answered_in_the_models_format(lm: pophood.LM) -> None:
    run = lm.chat("What is the capital of Japan?", temperature=0, max_tokens=40)
    answer = "".join(token.text for token in run)
    written = lm.detokenize(run.prompt_ids, special=True)
    assert written.startswith("<|im_start|>system\n") and written.endswith("<|im_start|>assistant\n")
    assert "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n" in written
    assert "Tokyo" in answer and "<|" not in answer
    assert set(run.finishes.values()) == {"stop"}


@pytest.mark.parametrize(("characters", "length"), LENGTHS)
def test_likelihood_of_wikitext_is_that_of_transformers(
    exact: pophood.LM, reference: Any, characters: int, length: int
) -> None:
    import torch

    text = WIKITEXT.read_text(encoding="utf-8")[:characters]
    score = exact.score(text, window=length)
    ids = score.token_ids
    expected: list[float] = []
    with torch.no_grad():
        for start in range(0, len(ids), length):
            window = torch.tensor([ids[start : start + length]])
            logits = reference(window).logits[0, :-1]
            chosen = logits.gather(1, window[0, 1:, None])[:, 0]
            expected += [float("nan"), *(chosen.double() - logits.logsumexp(-1).double()).tolist()]
    truth = np.array(expected)
    assert np.array_equal(np.isnan(score.log_probabilities), np.isnan(truth))
    assert score.scored == len(ids) - -(-len(ids) // length) > characters // 5
    difference = abs(score.mean_nll + np.nanmean(truth))
    print(f"mean NLL {score.mean_nll:.6f} nats, difference {difference:.2e}")
    assert difference <= 1e-4
    assert np.nanmax(np.abs(score.log_probabilities - truth)) < 1e-2


@pytest.mark.parametrize(
    ("characters", "bound"), [(5_000, 0.01), pytest.param(20_000, 0.005, marks=pytest.mark.full)]
)
def test_blocks_as_stored_cost_little_perplexity(
    lm: pophood.LM, exact: pophood.LM, characters: int, bound: float
) -> None:
    text = WIKITEXT.read_text(encoding="utf-8")[:characters]
    ours, theirs = (model.score(text, window=1024).mean_nll for model in (lm, exact))
    assert (lm.engine.precision, exact.engine.precision) == ("auto", "f32")
    assert 0 < abs(ours - theirs) < bound, (ours, theirs)


def test_blocks_agree_with_transformers(exact: pophood.LM, reference: Any) -> None:
    import torch

    ids = exact.tokenize("The capital of Spain is Madrid. It lies on the river Manzanares.")
    with torch.no_grad():
        truth = reference(torch.tensor([ids]), output_hidden_states=True)
    result = exact.engine.forward(
        [(exact.engine.new_sequence(), ids)], rows="all", taps=["blocks.*.resid_post"]
    )
    for i in range(exact.config.n_layer - 1):
        ours, theirs = result.taps[f"blocks.{i}.resid_post"], truth.hidden_states[i + 1][0].numpy()
        assert (np.abs(ours - theirs).max(1) / np.abs(theirs).max(1)).max() <= 1e-4, i
    assert np.abs(result.output - truth.logits[0].numpy()).max() <= 1e-3
