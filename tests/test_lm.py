"""The library as users call it, on small random models: tables, generation, scores, weights, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadInput, ContextOverflow, NotFound, Unsupported
from tests.tiny import tiny_folder, tiny_gguf

PROMPT = "The capital of Spain is"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("lm") / "tiny-gpt2", "gpt2", seed=4)


@pytest.fixture
def lm(folder: Path) -> pophood.LM:
    return pophood.load(folder)


def test_what_a_user_sees_of_the_model(lm: pophood.LM, folder: Path) -> None:
    config = lm.config
    assert (config.n_layer, config.n_head, config.n_embd, config.n_positions) == (2, 4, 64, 128)
    assert config.vocab_size == 50_257 and lm.n_params == config.n_params
    assert lm.path == folder and str(folder) in repr(lm) and lm.chat_template is None


def test_tokens_are_the_talks_table(lm: pophood.LM) -> None:
    table = lm.tokens(PROMPT)
    assert table.columns == ("position", "token_id", "token_text")
    assert table.column("token_id") == [464, 3139, 286, 8602, 318] == lm.tokenize(PROMPT)
    assert table.column("token_text") == ["The", " capital", " of", " Spain", " is"]
    assert lm.detokenize(lm.tokenize(PROMPT)) == PROMPT
    assert '" capital"' in str(table)


def test_half_a_character_is_shown_as_bytes(lm: pophood.LM) -> None:
    texts = lm.tokens("\N{OIL DRUM}").column("token_text")
    assert any("\\x" in str(text) for text in texts)
    assert lm.detokenize(lm.tokenize("\N{OIL DRUM}")) == "\N{OIL DRUM}"


def test_next_and_logits_agree(lm: pophood.LM) -> None:
    logits = lm.logits(PROMPT)
    assert logits.shape == (5, 50_257) and logits.dtype == np.float32
    table = lm.next(PROMPT, k=7)
    assert table.columns == ("token_id", "token_text", "logit", "probability") and len(table) == 7
    order = np.argsort(-logits[-1], kind="stable")[:7]
    assert table.column("token_id") == order.tolist()
    assert table.column("logit") == [float(x) for x in logits[-1][order]]
    probabilities = np.exp(logits[-1].astype(np.float64))
    probabilities /= probabilities.sum()
    assert np.allclose(np.array(table.column("probability"), float), probabilities[order], rtol=1e-5)
    assert "background:" in table._repr_html_(), "bars in a notebook"
    assert json.loads(table.to_json())[0]["token_id"] == order[0]


def test_generate_gives_text_completion_tokens_seconds(lm: pophood.LM) -> None:
    made = lm.generate(PROMPT, max_tokens=10, top_k=40, temperature=0.8, seed=42)
    assert made.text == PROMPT + made.completion and len(made.tokens) == 10
    assert made.seed == 42 and made.seconds > 0
    again = lm.generate(PROMPT, max_tokens=10, top_k=40, temperature=0.8, seed=42)
    assert again.text == made.text, "what was computed before is reused, and changes nothing"
    assert [t.id for t in lm.generate(PROMPT, max_tokens=5, temperature=1e-5).tokens] == greedy(lm, 5)


def greedy(lm: pophood.LM, n: int) -> list[int]:
    ids = lm.tokenize(PROMPT)
    for _ in range(n):
        ids.append(int(lm.logits(ids)[-1].argmax()))
    return ids[-n:]


def test_sample_i_of_a_batch_is_sample_i_alone(lm: pophood.LM, folder: Path) -> None:
    batch = lm.samples(PROMPT, 8, max_tokens=12, seed=7)
    assert len({made.text for made in batch}) > 4
    fresh = pophood.load(folder, threads=1)
    last = fresh.samples(PROMPT, 2, first_sample=6, max_tokens=12, seed=7)
    assert [made.text for made in last] == [made.text for made in batch[6:]]
    for i in (0, 3, 7):
        run = fresh.stream(PROMPT, first_sample=i, max_tokens=12, seed=7)
        assert [token.id for token in run] == [token.id for token in batch[i].tokens]


def test_details_are_the_models_own(lm: pophood.LM) -> None:
    tokens = list(lm.stream(PROMPT, max_tokens=4, details=True, seed=1))
    row = lm.logits(PROMPT)[-1].astype(np.float64)
    probabilities = np.exp(row) / np.exp(row).sum()
    first = tokens[0]
    assert first.probability is not None and first.entropy is not None and first.top is not None
    assert math.isclose(first.probability, probabilities[first.id], rel_tol=1e-4)
    assert math.isclose(first.entropy, -(probabilities * np.log(probabilities)).sum(), rel_tol=1e-4)
    assert [entry[0] for entry in first.top] == np.argsort(-row, kind="stable")[:10].tolist()


def test_weights_by_either_name(lm: pophood.LM) -> None:
    rows = lm.weights["transformer.wte.weight"]
    assert rows.shape == (50_257, 64) and rows.dtype == np.float32 and not rows.flags.writeable
    assert np.array_equal(rows[464], lm.weights["embed.token"][464])
    assert lm.weights["transformer.h.0.attn.c_attn.weight"].shape == (64, 192)


def test_one_file_and_one_folder_are_one_model(lm: pophood.LM, tmp_path: Path) -> None:
    gguf = pophood.load(tiny_gguf(tmp_path / "tiny.gguf", "gpt2", seed=4))
    assert gguf.tokenize(PROMPT) == lm.tokenize(PROMPT)
    assert gguf.logits(PROMPT).tobytes() == lm.logits(PROMPT).tobytes()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda lm: lm.generate(PROMPT, temprature=1),
            BadInput,
            "no setting is called temprature; there are:.*temperature",
        ),
        (lambda lm: lm.generate(PROMPT, temperature=-1), BadInput, "temperature .* is -1; wanted"),
        (
            lambda lm: lm.generate("a " * 200),
            ContextOverflow,
            "the text has 20. tokens; the context window holds 128",
        ),
        (lambda lm: lm.logits("a " * 200), ContextOverflow, "holds 128: shorten the text"),
        (lambda lm: lm.logits(""), BadInput, "the text is empty"),
        (lambda lm: lm.next(PROMPT, k=0), BadInput, r"k must be 1\.\.50,257, got 0"),
        (
            lambda lm: lm.chat("hello"),
            Unsupported,
            "is a completion model, without a chat template: use generate",
        ),
        (lambda lm: lm.weights["wte.wieght"], BadInput, "no tensor is called 'wte.wieght'.*wte.weight"),
        (lambda lm: pophood.load(lm.path / "missing"), NotFound, "there is no such file or folder"),
        (lambda lm: pophood.load(lm.path, precision="q3"), Unsupported, "precision 'q3' is not available"),
    ],
)
def test_one_clear_line_for_each_mistake(
    lm: pophood.LM, call: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        call(lm)
    assert "\n" not in str(raised.value)


def test_the_surface_is_small_and_lazy() -> None:
    assert 10 <= len(pophood.__all__) <= 18
    assert set(pophood.__all__) <= set(dir(pophood))
    for name in pophood.__all__:
        assert getattr(pophood, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pophood.nothing  # noqa: B018
