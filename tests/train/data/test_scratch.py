"""From scratch: a vocabulary that other libraries read alike, sizes, and initial weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.config import tensor_shapes
from pophood.errors import BadInput
from pophood.text.tokenizer import Tokenizer
from pophood.train.data import DataOptions, open_data
from pophood.train.run.scratch import (
    LEAST_VOCABULARY,
    SIZES,
    initial_weights,
    scratch_config,
    train_tokenizer,
)
from tests.train.data.samples import SHAKESPEARE, TASKS, write_lines


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokenizer]:
    folder = tmp_path_factory.mktemp("scratch") / "model"
    return folder, train_tokenizer([SHAKESPEARE], folder, 1000)


def test_the_vocabulary_is_read_the_same_elsewhere(trained: tuple[Path, Tokenizer]) -> None:
    from tokenizers import Tokenizer as Library
    from transformers import AutoTokenizer

    folder, tokenizer = trained
    library = Library.from_file(str(folder / "tokenizer.json"))
    reference: Any = AutoTokenizer.from_pretrained(folder)
    for text in (SHAKESPEARE.read_text(encoding="utf-8")[:5000], "Ünïcödé \U0001f44d\r\n\t  x", ""):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ids == library.encode(text).ids
        assert ids == reference(text)["input_ids"]
    assert reference.eos_token_id == 999
    assert tokenizer.vocab_size == library.get_vocab_size() == 1000
    assert tokenizer.specials == {999: "<|endoftext|>"} and 999 in tokenizer.stops


def test_training_is_repeatable(trained: tuple[Path, Tokenizer], tmp_path: Path) -> None:
    train_tokenizer([SHAKESPEARE], tmp_path, 1000)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (trained[0] / name).read_bytes()


def test_its_merges_are_those_of_the_text(trained: tuple[Path, Tokenizer], tmp_path: Path) -> None:
    """The first merge is the most frequent pair in words, and the text becomes far shorter."""
    merges = json.loads((trained[0] / "tokenizer.json").read_bytes())["model"]["merges"]
    assert merges[0] in (["Ġ", "t"], ["h", "e"])
    text = SHAKESPEARE.read_text(encoding="utf-8")
    assert len(trained[1].encode(text)) < 0.45 * len(text)


def test_a_short_text_has_a_small_vocabulary(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", [{"prompt": "abab", "completion": "abab"}, b"bad", {"prompt": 1}]
    )
    tokenizer = train_tokenizer([path], tmp_path / "m", 5000)
    assert 256 < tokenizer.vocab_size < 270
    assert tokenizer.id_of("ab") is not None
    with pytest.raises(BadInput, match="at least 257 tokens, got 100"):
        train_tokenizer([path], tmp_path / "m", 100)
    assert train_tokenizer([path], tmp_path / "n", LEAST_VOCABULARY).vocab_size == 257


def test_data_opens_with_its_own_vocabulary(trained: tuple[Path, Tokenizer], tmp_path: Path) -> None:
    data = open_data([SHAKESPEARE, TASKS], trained[1], None, DataOptions(cache=tmp_path, length=128))
    assert data.report.documents == 176
    assert int(data.train.store.ids.max()) == 999
    assert data.template is not None


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_whole_models(size: str) -> None:
    config = scratch_config(size, 777)
    assert config.vocab_size == 777 and config.n_embd == config.n_head * config.head_dim
    assert config.n_head % config.n_kv_head == 0
    assert tensor_shapes(config)["embed.token"] == (777, config.n_embd)
    if size in ("gpt2-tiny", "llama-tiny"):
        assert SIZES[size].n_params < 1_200_000


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(BadInput, match="no size is called 'gpt9'; wanted one of gpt2-nano"):
        scratch_config("gpt9", 300)


def test_first_weights_are_gpt2s() -> None:
    config = scratch_config("gpt2-tiny", 500)
    weights = dict(initial_weights(config, 1))
    assert {name: value.shape for name, value in weights.items()} == tensor_shapes(config)
    assert weights["embed.token"].std() == pytest.approx(0.02, rel=0.05)
    assert weights["blocks.1.mlp.down.weight"].std() == pytest.approx(0.02 / np.sqrt(8), rel=0.05)
    assert (weights["blocks.0.ln_1.weight"] == 1).all() and (weights["blocks.0.ln_1.bias"] == 0).all()
    again, other = dict(initial_weights(config, 1)), dict(initial_weights(config, 2))
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    assert not np.array_equal(weights["embed.token"], other["embed.token"])
