"""The types of an export: the base's own by default; bfloat16 as in torch; the same for tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pophood.cli.app import pophood
from pophood.config import tensor_shapes
from pophood.errors import Unsupported
from pophood.export.hf.hf_folder import narrowed
from pophood.export.job import export_model
from pophood.export.merged import Merged
from pophood.export.quantise import to_bfloat16, widened
from pophood.export.types import Types, types_of_base
from pophood.formats import open_gguf, open_safetensors
from pophood.model.bundle import Bundle, open_bundle
from tests.export.adapters import logits, random_adapter
from tests.llama import open_llama
from tests.tiny import FAMILIES, reference, tiny_folder, tiny_gguf
from tests.tiny_values import narrowed as stored_bits

IDS = [1, 2, 3, 4, 5, 77, 300]


def base(path: Path, source: str, family: str = "llama", **choices: Any) -> Bundle:
    if family == "gpt2":
        choices.setdefault("vocab_size", 2000)
    if source == "folder":
        return open_bundle(tiny_folder(path / "base", family, ignored=False, **choices))
    return open_bundle(tiny_gguf(path / "base.gguf", family, **choices))


def size(path: Path) -> int:
    return (path / "model.safetensors" if path.is_dir() else path).stat().st_size


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("source", ["folder", "gguf"])
@pytest.mark.parametrize("to", ["out", "out.gguf"])
def test_what_the_base_stores_is_written(tmp_path: Path, dtype: str, source: str, to: str) -> None:
    bundle = base(tmp_path, source, dtype=dtype)
    receipt = export_model(bundle, tmp_path / to, threads=1)
    written = open_bundle(tmp_path / to)
    names = tensor_shapes(bundle.config)
    matrices = [name for name in names if len(names[name]) == 2]
    assert {written.weights.stored_type(name) for name in matrices} == {dtype}
    vectors = {written.weights.stored_type(name) for name in names if name not in matrices}
    kept = {bundle.weights.stored_type(name) for name in names if name not in matrices}
    assert vectors == (kept if to == "out" else {"F32"})
    for name in names:
        assert np.array_equal(written.weights[name], bundle.weights[name])
    assert receipt.type == dtype.lower()
    assert receipt.proof is not None
    assert (receipt.proof.bits_equal, receipt.proof.bound) == (True, 0.0)
    assert size(tmp_path / to) < 1.2 * size(tmp_path / ("base" if source == "folder" else "base.gguf"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_family_keeps_its_type(tmp_path: Path, family: str, dtype: str) -> None:
    bundle = base(tmp_path, "folder", family, dtype=dtype)
    assert export_model(bundle, tmp_path / "out", threads=1).type == dtype.lower()
    said = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert said["torch_dtype"] == {"F16": "float16", "BF16": "bfloat16"}[dtype]
    for file, other in (("base", "out"), ("out", "base")):
        ours, theirs = (open_safetensors(tmp_path / p / "model.safetensors").tensors for p in (file, other))
        assert {name: (t.type, t.data.tobytes()) for name, t in ours.items()} == {
            name: (t.type, t.data.tobytes()) for name, t in theirs.items()
        }


def test_the_type_may_differ_from_tensor_to_tensor(tmp_path: Path) -> None:
    """Norms in float32 beside matrices in bfloat16: nothing is rounded, nothing grows."""
    bundle = base(tmp_path, "gguf", dtype="BF16")
    assert types_of_base(bundle.weights, tensor_shapes(bundle.config)).label == "bf16"
    receipt = export_model(bundle, tmp_path / "out", threads=1)
    written = open_bundle(tmp_path / "out")
    assert written.weights.stored_type("final_norm.weight") == "F32"
    assert written.weights.stored_type("blocks.0.attn.q.weight") == "BF16"
    assert np.array_equal(written.weights["final_norm.weight"], bundle.weights["final_norm.weight"])
    assert receipt.type == "bf16"
    again = export_model(written, tmp_path / "again.gguf", threads=1)
    assert again.proof is not None
    assert again.proof.bits_equal
    # If one type is requested, all tensors of a folder have it.
    export_model(bundle, tmp_path / "all", "bf16", threads=1)
    assert open_bundle(tmp_path / "all").weights.stored_type("final_norm.weight") == "BF16"


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0", "q4_1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stored_types_by_name(tmp_path: Path, family: str, kind: str) -> None:
    """With 4-bit types, the token matrix and a separate output matrix have 8 bits, vectors 32."""
    bundle = base(tmp_path, "folder", family)
    export_model(bundle, tmp_path / "out.gguf", kind, threads=1)
    logits_go_through = {"token_embd.weight", "output.weight"}
    whole = {"position_embd.weight", "rope_freqs.weight"}
    tensors = open_gguf(tmp_path / "out.gguf").tensors
    wanted = {}
    for name, tensor in tensors.items():
        wanted[name] = kind.upper()
        if len(tensor.shape) == 1 or name in whole:
            wanted[name] = "F32"
        elif kind in ("q4_0", "q4_1") and name in logits_go_through:
            wanted[name] = "Q8_0"
    assert {name: tensor.type for name, tensor in tensors.items()} == wanted
    assert ("output.weight" in tensors) == (not bundle.config.tied_output)
    assert ("position_embd.weight" in tensors) == (family == "gpt2")


@pytest.mark.parametrize("quantised", ["Q4_0", "Q8_0"])
def test_what_is_quantised_is_written_in_float32(tmp_path: Path, quantised: str) -> None:
    bundle = base(tmp_path, "gguf", quantised=quantised)
    receipt = export_model(bundle, tmp_path / "out", threads=1)
    assert (receipt.type, receipt.proof and receipt.proof.bits_equal) == ("f32", True)


@pytest.mark.parametrize("to", ["out", "out.gguf"])
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_an_adapter_is_folded_in_and_rounded_as_torch_rounds(tmp_path: Path, to: str, dtype: str) -> None:
    import torch

    bundle = base(tmp_path, "folder", dtype=dtype)
    adapters = [(random_adapter(bundle.config, kinds=("attn.v", "mlp.up")), 0.5)]
    receipt = export_model(bundle, tmp_path / to, adapters=adapters, threads=1)
    assert receipt.type == dtype.lower()
    assert receipt.proof is not None
    assert not receipt.proof.bits_equal
    assert receipt.proof.kl <= receipt.proof.bound
    written, merged = open_bundle(tmp_path / to), Merged(bundle.config, bundle.weights, adapters)
    kind = {"F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    name = "blocks.1.mlp.up.weight"
    theirs = torch.from_numpy(np.array(merged(name))).to(kind).to(torch.float32).numpy()
    assert np.array_equal(written.weights[name], theirs)
    untouched = "blocks.1.mlp.down.weight"
    assert np.array_equal(written.weights[untouched], bundle.weights[untouched])


@pytest.mark.parametrize("source", ["F32", "F16"])
@pytest.mark.parametrize("to", ["out", "out.gguf"])
def test_bf16_on_request(tmp_path: Path, source: str, to: str) -> None:
    bundle = base(tmp_path, "folder", dtype=source)
    receipt = export_model(bundle, tmp_path / to, "bf16", threads=1)
    written = open_bundle(tmp_path / to)
    assert receipt.type == "bf16"
    assert receipt.proof is not None
    assert 0 < receipt.proof.kl <= receipt.proof.bound
    for name in ("embed.token", "blocks.0.attn.q.weight"):
        assert written.weights.stored_type(name) == "BF16"
        assert np.array_equal(written.weights[name], widened(to_bfloat16(bundle.weights[name])))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_bf16_files_open_elsewhere(tmp_path: Path, family: str) -> None:
    import torch

    bundle = base(tmp_path, "folder", family, dtype="BF16")
    ours = logits(bundle.config, bundle.weights, IDS)
    export_model(bundle, tmp_path / "out", threads=1)
    with torch.no_grad():
        theirs = reference(tmp_path / "out")(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(theirs - ours).max() < 1e-4
    pytest.importorskip("llama_cpp", reason="needs Python package: llama-cpp-python")
    export_model(bundle, tmp_path / "out.gguf", threads=1)
    assert open_gguf(tmp_path / "out.gguf").metadata["general.file_type"] == 32
    model = open_llama(tmp_path / "out.gguf", n_ctx=64, logits_all=True)
    try:
        model.eval(IDS)
        scores = np.array(model.scores[: len(IDS)])
    finally:
        model.close()
    assert np.abs(scores - ours).max() < 0.1  # it rounds activations to bfloat16


def test_bfloat16_is_torchs() -> None:
    import torch

    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint32)
    bits[:8] = [0, 1 << 31, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7F7F7FFF, 0x7F7F8000, 1]
    bits[8:16] = [
        0x3F808000,
        0x3F818000,
        0x3F807FFF,
        0x3F808001,
        0x00007FFF,
        0x00008000,
        0x007FFFFF,
        0x80808000,
    ]
    values = bits.view(np.float32)
    theirs = torch.from_numpy(values.copy()).to(torch.bfloat16).to(torch.float32).numpy()
    assert np.array_equal(widened(to_bfloat16(values)), theirs, equal_nan=True)
    sound = values[np.isfinite(values)]
    assert np.array_equal(to_bfloat16(sound), stored_bits(sound, "BF16"))


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("bf16", 3.4e38, "bf16 ends at 3.39e38: choose --type f32"),
        ("f16", 7e4, "f16 ends at 65,504: choose --type f32 or bf16"),
    ],
)
def test_what_a_type_cannot_hold_is_named(kind: str, value: float, words: str) -> None:
    with pytest.raises(Unsupported, match="tensor w holds") as caught:
        narrowed(np.array([1, value], np.float32), kind, "w")
    assert words in str(caught.value)
    assert narrowed(np.array([1, value], np.float32), "f32", "w")[1] == np.float32(value)


def test_a_tensor_of_parts_in_several_types_takes_float32() -> None:
    types = Types("bf16", {"a": "bf16", "b": "f16", "c": "bf16"})
    assert (types.of("a", "c"), types.of("a", "b"), types.of("other")) == ("bf16", "f32", "bf16")


# ---- the commands ----


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(pophood, [*map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_says_the_type(tmp_path: Path) -> None:
    base(tmp_path, "folder", dtype="BF16")
    code, out, err = run("export", tmp_path / "base", "--to", tmp_path / "out", "--threads", 1)
    assert (code, "writing bf16, then" in err, "safetensors, bf16" in out) == (0, True, True), err
    assert "logits of" in out and "bit-equal" in out
    code, out, err = run("export", tmp_path / "base", "--to", tmp_path / "b", "--type", "f32", "--threads", 1)
    assert (code, "safetensors, f32" in out) == (0, True), err
    code, out, err = run(
        "export", tmp_path / "b", "--to", tmp_path / "c.gguf", "--type", "bf16", "--threads", 1
    )
    assert (code, "gguf, bf16" in out, "divergence" in out or "bit-equal" in out) == (0, True, True), err


@pytest.mark.parametrize(
    ("dtype", "more", "wanted"),
    [
        ("BF16", [], "BF16"),
        ("F16", [], "F16"),
        ("F32", [], "F32"),
        ("BF16", ["--type", "f32"], "F32"),
        ("F32", ["--type", "bf16"], "BF16"),
    ],
)
def test_full_tuning_writes_what_the_base_stores(
    tmp_path: Path, dtype: str, more: list[str], wanted: str
) -> None:
    pytest.importorskip("torch", reason="needs Python package: torch")
    base(tmp_path, "folder", dtype=dtype)
    (tmp_path / "notes.txt").write_text("the cat sat on the mat\n" * 60, encoding="utf-8")
    words = ["tune", tmp_path / "notes.txt", "-m", tmp_path / "base", "-o", tmp_path / "tuned"]
    words += ["--method", "full", "--steps", "2", "--length", "16", "--threads", "1", *more]
    code, _, err = run(*words)
    assert code == 0, err
    written = open_bundle(tmp_path / "tuned")
    assert {written.weights.stored_type(name) for name in written.weights} == {wanted}
    original = open_bundle(tmp_path / "base").weights
    assert not np.array_equal(written.weights["blocks.0.attn.q.weight"], original["blocks.0.attn.q.weight"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--type", "bf16"], "an adapter is written in float32"),
        (["--type", "f16", "--method", "lora"], "an adapter is written in float32"),
        (["--type", "f16", "--from-scratch", "gpt2-nano"], "a model from scratch is written in float32"),
        (["--type", "q8_0", "--method", "full"], "'q8_0' is not one of"),
    ],
)
def test_types_that_tuning_does_not_write(tmp_path: Path, more: list[str], words: str) -> None:
    pytest.importorskip("torch", reason="needs Python package: torch")
    (tmp_path / "notes.txt").write_text("the cat sat on the mat\n" * 60, encoding="utf-8")
    model = [] if "--from-scratch" in more else ["-m", base(tmp_path, "folder").path]
    code, _, err = run("tune", tmp_path / "notes.txt", *model, "-o", tmp_path / "tuned", *more)
    assert (code, words in err) == (2, True), err
    assert not (tmp_path / "tuned").exists()
