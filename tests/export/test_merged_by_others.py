"""Models merged by other programs: an output matrix that is no longer tied, tokens without rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadInput
from pophood.export.job import export_model
from pophood.model.bundle import open_bundle
from tests.export.adapters import logits
from tests.tiny import reference, tiny_folder

IDS = [1, 2, 3, 4, 5, 77, 300]


def with_output(folder: Path, factor: float) -> Path:
    """Add a separate output matrix to a model whose config.json ties it."""
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs Python package: safetensors")
    weights = safetensors.load_file(folder / "model.safetensors")
    token = next(name for name in weights if name.endswith(("embed_tokens.weight", "wte.weight")))
    weights["lm_head.weight"] = weights[token] * np.float32(factor)
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_an_output_matrix_that_is_tied_no_more(
    tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers #45127, LlamaFactory PR 10832: merged, but config.json still says tied."""
    import torch

    size: dict[str, Any] = {"vocab_size": 2000} if family == "gpt2" else {}
    folder = with_output(tiny_folder(tmp_path / "base", family, ignored=False, **size), 1.5)
    bundle = open_bundle(folder)
    assert not bundle.config.tied_output
    assert len(bundle.remarks) == 1
    assert "holds another output matrix: both are used" in bundle.remarks[0]
    ours = logits(bundle.config, bundle.weights, IDS)
    with torch.no_grad():
        theirs = reference(folder)(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(theirs - ours).max() < 1e-4
    for name in ("out", "out.gguf"):
        export_model(bundle, tmp_path / name, threads=1)
        written = open_bundle(tmp_path / name)
        assert written.remarks == ()
        assert np.array_equal(logits(written.config, written.weights, IDS), ours)
    said = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert said["tie_word_embeddings"] is False
    said_aloud: list[str] = []
    pophood.load(folder, threads=1, announce=said_aloud.append)
    assert any("both are used" in line for line in said_aloud)


def test_an_equal_output_matrix_stays_tied(tmp_path: Path) -> None:
    bundle = open_bundle(with_output(tiny_folder(tmp_path / "base", "llama"), 1.0))
    assert (bundle.config.tied_output, bundle.remarks) == (True, ())


def add_token(folder: Path, content: str, id_: int) -> None:
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    said["added_tokens"].append({"id": id_, "content": content, "special": True, **flags})
    path.write_text(json.dumps(said), encoding="utf-8")


def test_added_tokens_without_rows(tmp_path: Path) -> None:
    """llama.cpp PR 3633, unsloth #3444: a padding token was added, and the matrices were not resized."""
    folder = tiny_folder(tmp_path / "base", "llama")
    add_token(folder, "[PAD]", 512)
    add_token(folder, "<|more|>", 513)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"pad_token": "[PAD]"}), encoding="utf-8"
    )
    bundle = open_bundle(folder)
    assert bundle.tokenizer.vocab_size == 514
    receipt = export_model(bundle, tmp_path / "out.gguf", threads=1)
    note = "the model has no rows for the tokens '[PAD]', '<|more|>': the file leaves them out"
    assert receipt.notes == [note]
    written = open_bundle(tmp_path / "out.gguf")
    assert written.tokenizer.vocab_size == 512
    assert written.tokenizer.encode("Hello there") == bundle.tokenizer.encode("Hello there")
    export_model(bundle, tmp_path / "out", threads=1)
    assert open_bundle(tmp_path / "out").tokenizer.vocab_size == 514


def test_a_stop_token_without_a_row_is_named(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "base", "llama")
    add_token(folder, "<|stop|>", 512)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    said = json.dumps(settings | {"eos_token": "<|stop|>"})
    (folder / "tokenizer_config.json").write_text(said, encoding="utf-8")
    with pytest.raises(BadInput, match=r"texts need '<\|stop\|>', which it cannot read"):
        export_model(open_bundle(folder), tmp_path / "out.gguf", threads=1)
