"""A family with another name in GGUF, and an architecture that an export would lose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from pophood.config import Rope
from pophood.export.job import export_model
from pophood.export.proof import differences
from pophood.formats import open_gguf
from pophood.model.bundle import open_bundle
from tests.export.adapters import logits
from tests.tiny import tiny_config, tiny_folder


def test_mistral_is_llama_in_gguf(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", "llama-untied", ignored=False)
    said = json.loads((base / "config.json").read_text(encoding="utf-8"))
    for key in ("attention_bias", "mlp_bias", "pretraining_tp"):
        del said[key]
    said |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}
    (base / "config.json").write_text(json.dumps(said), encoding="utf-8")
    bundle = open_bundle(base)
    assert bundle.config.architecture == "mistral"
    export_model(bundle, tmp_path / "out.gguf", threads=1)
    export_model(bundle, tmp_path / "out", threads=1)
    assert open_gguf(tmp_path / "out.gguf").metadata["general.architecture"] == "llama"
    written, folder = open_bundle(tmp_path / "out.gguf"), open_bundle(tmp_path / "out")
    assert folder.config == bundle.config
    ours = logits(bundle.config, bundle.weights, [1, 2, 3])
    assert np.array_equal(logits(written.config, written.weights, [1, 2, 3]), ours)


def test_what_an_architecture_lost_is_named() -> None:
    config = tiny_config("llama")
    assert differences(config, replace(config, architecture="other")) == []
    assert differences(config, replace(config, n_layer=1)) == ["n_layer 2 became 1"]
    assert differences(config, replace(config, rope=Rope(500_000.0))) == [
        "its rotary positions have other frequencies"
    ]
