"""Whole exports of random models, opened by transformers, llama.cpp, and our own engine with equal bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.errors import BadInput, Unsupported
from pophood.export.job import export_model
from pophood.export.merged import Merged
from pophood.export.proof import PASSAGE
from pophood.model.bundle import Bundle, open_bundle
from tests.export.adapters import logits, random_adapter
from tests.llama import open_llama
from tests.tiny import FAMILIES, reference, tiny_folder, tiny_gguf

TEXT = "Hello, the 1234 world's end é\n\n  x"


def small(path: Path, family: str, source: str, **choices: Any) -> Bundle:
    if family == "gpt2":
        choices.setdefault("vocab_size", 2000)
    make = tiny_folder if source == "folder" else tiny_gguf
    return open_bundle(make(path / ("base" if source == "folder" else "base.gguf"), family, **choices))


def meant(bundle: Bundle, adapters: list[Any]) -> Any:
    return logits(
        bundle.config, Merged(bundle.config, bundle.weights, adapters), bundle.tokenizer.encode(TEXT)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", ["folder", "gguf"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folders_in_transformers(tmp_path: Path, family: str, source: str) -> None:
    import torch
    from transformers import AutoTokenizer

    bundle = small(tmp_path, family, source)
    adapters = [(random_adapter(bundle.config), 0.5)]
    receipt = export_model(bundle, tmp_path / "out", adapters=adapters, threads=1)
    ids = bundle.tokenizer.encode(TEXT)
    with torch.no_grad():
        theirs = reference(tmp_path / "out")(torch.tensor([ids])).logits[0].numpy()
    ours = meant(bundle, adapters)
    assert np.abs(theirs - ours).max() < 1e-4
    assert np.array_equal(logits((out := open_bundle(tmp_path / "out")).config, out.weights, ids), ours)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (TEXT, PASSAGE):
        assert tokenizer.encode(text) == bundle.tokenizer.encode(text, parse_special=True)
    if bundle.chat_template is not None:
        messages = [{"role": "user", "content": "Hi"}]
        theirs_text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert theirs_text == bundle.chat_template.render(messages)
    assert receipt.proof is not None
    assert receipt.proof.bits_equal
    assert (receipt.proof.greedy, receipt.proof.kl) == (64, 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_trained_is_what_was_written(tmp_path: Path, family: str) -> None:
    """The adapter during training in torch and the exported files in the engine agree within 1e-3."""
    import torch

    from pophood.train.model.attention import WHOLE
    from pophood.train.model.lora import add_lora, lora_layers
    from pophood.train.model.precision import load_f32
    from pophood.train.model.transformer import Model
    from pophood.train.settings import LoraSettings

    bundle = small(tmp_path, family, "folder")
    adapter = random_adapter(bundle.config)
    model = Model(bundle.config)
    load_f32(model, bundle.weights)
    add_lora(model, LoraSettings(rank=4, alpha=6.0))
    ids = bundle.tokenizer.encode(TEXT)
    with torch.no_grad():
        for target, layer in lora_layers(model).items():
            for mine, theirs in zip(adapter.targets[target], (layer.lora_a, layer.lora_b), strict=True):
                theirs.copy_(torch.from_numpy(mine))
        hidden = model(torch.tensor([ids]), torch.arange(len(ids))[None], WHOLE)
        trained = (hidden @ model.output_weight.T)[0].numpy()
    for name in ("out", "out.gguf"):
        export_model(bundle, tmp_path / name, adapters=[(adapter, 1.0)], threads=1)
        written = open_bundle(tmp_path / name)
        assert np.abs(logits(written.config, written.weights, ids) - trained).max() < 1e-3


@pytest.mark.parametrize("source", ["folder", "gguf"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gguf_in_llama_cpp(tmp_path: Path, family: str, source: str) -> None:
    pytest.importorskip("llama_cpp", reason="needs Python package: llama-cpp-python")
    bundle = small(tmp_path, family, source)
    adapters = [(random_adapter(bundle.config), 0.5)]
    ids = bundle.tokenizer.encode(TEXT)
    kinds = ("f32", "q4_1") if source == "gguf" else ("f32", "f16", "q8_0", "q4_0")
    for kind in kinds:
        path = tmp_path / f"{kind}.gguf"
        receipt = export_model(bundle, path, kind, adapters, threads=1)
        written = open_bundle(path)
        ours = logits(written.config, written.weights, ids)
        model = open_llama(path, n_ctx=64, logits_all=True)
        try:
            assert model.tokenize(TEXT.encode(), add_bos=True, special=False) == ids
            model.eval(ids)
            theirs = np.array(model.scores[: len(ids)])
        finally:
            model.close()
        # llama.cpp keeps keys and values at 16 bits, and rounds activations to 8 for 8 and 4-bit products.
        assert np.abs(theirs - ours).max() < (0.05 if kind in ("f32", "f16") else 0.6)
        assert np.array_equal(ours, meant(bundle, adapters)) == (kind == "f32")
        assert receipt.proof is not None
        assert receipt.proof.kl <= receipt.proof.bound


def test_the_receipt_and_its_files(tmp_path: Path) -> None:
    import hashlib

    bundle = small(tmp_path, "llama", "folder")
    adapters = [(random_adapter(bundle.config), 0.25)]
    receipt = export_model(bundle, tmp_path / "out", "f16", adapters, template="{{ bos_token }}", threads=1)
    said = json.loads((tmp_path / "out" / "receipt.json").read_text(encoding="utf-8"))
    assert said == json.loads(json.dumps(receipt.as_json()))
    for name, facts in said["files"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["bytes"], facts["sha256"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*said["files"], "receipt.json"}
    assert said["adapters"] == [{"name": "tuned", "scale": 0.25, "rank": 4, "alpha": 6.0, "matrices": 14}]
    assert (said["source"], said["type"], said["format"]) == ("base", "f16", "safetensors")
    written = open_bundle(tmp_path / "out")
    assert written.chat_template is not None
    assert written.chat_template.source == "{{ bos_token }}"
    assert written.weights.stored_type("embed.token") == "F16"
    first = (tmp_path / "out" / "model.safetensors").read_bytes()
    export_model(bundle, tmp_path / "again", "f16", adapters, template="{{ bos_token }}", threads=1)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == first
    assert (tmp_path / "again" / "receipt.json").read_bytes() == (
        tmp_path / "out" / "receipt.json"
    ).read_bytes()


@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_only_an_export_is_replaced(tmp_path: Path, name: str) -> None:
    bundle = small(tmp_path, "qwen2", "folder", n_layer=1)
    export_model(bundle, tmp_path / name, threads=1)
    export_model(bundle, tmp_path / name, "f16", threads=1)
    assert open_bundle(tmp_path / name).weights.stored_type("embed.token") == "F16"
    foreign = tmp_path / f"foreign-{name}"
    if name == "out":
        foreign.mkdir()
        (foreign / "letter.txt").write_text("mine", encoding="utf-8")
    else:
        foreign.write_bytes(b"mine")
    with pytest.raises(BadInput, match="exists, but is not an export"):
        export_model(bundle, foreign, threads=1)
    (tmp_path / "base" / "receipt.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match="holds the model to export"):
        export_model(bundle, tmp_path / "base", threads=1)


@pytest.mark.parametrize(
    ("to", "kind", "words"),
    [
        ("out", "q8_0", "name a .gguf file"),
        ("out.gguf", "q5_0", "f32, f16, bf16, q8_0, q4_0, q4_1"),
        ("out", "F32", "f32, f16, bf16"),
    ],
)
def test_types_that_are_not_written(tmp_path: Path, to: str, kind: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        export_model(small(tmp_path, "qwen2", "folder", n_layer=1), tmp_path / to, kind)
    assert words in str(caught.value)


def test_rows_that_a_type_cannot_pack(tmp_path: Path) -> None:
    bundle = small(tmp_path, "qwen2", "folder", n_layer=1, n_inner=100)
    with pytest.raises(BadInput, match="rows of 100 values; Q8_0 packs 32"):
        export_model(bundle, tmp_path / "out.gguf", "q8_0")
    assert {path.name for path in tmp_path.iterdir()} == {"base"}


@pytest.mark.parametrize("to", ["out", "out.gguf"])
def test_values_beyond_float16(tmp_path: Path, to: str) -> None:
    bundle = small(tmp_path, "qwen2", "folder", n_layer=1)
    adapter = random_adapter(bundle.config)
    with pytest.raises(Unsupported, match=r"65,504"):
        export_model(bundle, tmp_path / to, "f16", [(adapter, 1e6)])
    assert {path.name for path in tmp_path.iterdir()} == {"base"}


def test_openai_s_names_of_gpt2_s_vocabulary(tmp_path: Path) -> None:
    bundle = small(tmp_path, "gpt2", "folder")
    base = tmp_path / "base"
    (base / "vocab.json").rename(base / "encoder.json")
    (base / "merges.txt").rename(base / "vocab.bpe")
    bundle = open_bundle(base)
    export_model(bundle, tmp_path / "out", threads=1)
    assert (tmp_path / "out" / "vocab.json").is_file()
    assert open_bundle(tmp_path / "out").tokenizer.encode(TEXT) == bundle.tokenizer.encode(TEXT)


def test_stretched_positions_that_json_cannot_say(tmp_path: Path) -> None:
    from dataclasses import replace

    from pophood.config import Rope

    bundle = small(tmp_path, "llama", "gguf")
    odd = replace(bundle.config, rope=Rope(500_000.0, divisors=tuple([1.5] * 8)))
    with pytest.raises(Unsupported, match="export it as GGUF"):
        export_model(replace(bundle, config=odd), tmp_path / "out")
