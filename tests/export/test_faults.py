"""A full disk at every write, and damage before reading back: the older export stays complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.adapters.adapter import Adapter
from pophood.errors import BadFile, EngineError, PophoodError
from pophood.export import job, proof
from pophood.export.job import export_adapter, export_model
from pophood.model.bundle import Bundle, open_bundle
from pophood.text.gguf.pretokenizers import CUT_BY_NAME, CUT_BY_STEPS
from tests.export.adapters import random_adapter
from tests.hub.test_disk_full import FullDisk
from tests.tiny import tiny_folder

SIZES: dict[str, Any] = {"n_layer": 1, "n_embd": 32, "head_dim": 8, "n_inner": 32, "n_positions": 16}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(tiny_folder(tmp_path / "base", "llama", **SIZES))


def contents(place: Path) -> dict[str, bytes]:
    """List everything at a path and beside it that an export could leave."""
    return {
        str(path.relative_to(place.parent)): path.read_bytes()
        for path in sorted(place.parent.rglob("*"))
        if path.is_file() and "base" not in path.parts
    }


def an_export(kind: str, bundle: Bundle) -> Callable[[Path, str], object]:
    adapter = random_adapter(bundle.config)
    other = Adapter("other", 4, 6.0, 3.0, adapter.targets)
    if kind == "peft":
        return lambda to, which: export_adapter(bundle.config, adapter if which == "first" else other, to)
    adapters = [(adapter, 1.0)]
    return lambda to, which: export_model(
        bundle, to, "f32", [] if which == "first" else adapters, ollama=kind == "ollama", threads=1
    )


@pytest.mark.parametrize(("kind", "name"), [("model", "out"), ("ollama", "out.gguf"), ("peft", "out")])
def test_a_full_disk(
    tmp_path: Path, bundle: Bundle, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = an_export(kind, bundle)
    to = tmp_path / name
    monkeypatch.setattr(job, "prove_model", quick_proof)  # reading back writes nothing
    run(to, "second")
    second = contents(to)
    failed: list[str] = []
    for fail_at in range(1, 200):
        run(to, "first")
        first = contents(to)
        disk = FullDisk(fail_at)
        with disk.in_place():
            try:
                run(to, "second")
                message = ""
            except PophoodError as error:
                message = str(error)
        if not disk.failed:
            break
        failed.append(disk.failed)
        assert "the disk is full: needed" in message
        assert "free" in message
        assert contents(to) == first, f"{disk.failed}, step {fail_at}"
    assert not disk.failed
    assert contents(to) == second
    assert {"mkdir", "write", "fsync", "replace"} <= set(failed)


def quick_proof(*args: object, **kwargs: object) -> None:
    return None


def test_the_kernel_s_own_error_names_the_sum(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PophoodError, match=r"the disk is full: needed [\d,]+ bytes|needed more"):
        export_model(bundle, tmp_path / "out.gguf", threads=1)
    assert contents(tmp_path / "out.gguf") == {}


def spoil(offset: int) -> Callable[..., Any]:
    """Change one byte of the weights between writing and reading back."""

    def spoiled(path: Path, *args: Any, **kwargs: Any) -> Any:
        weights = path / "model.safetensors" if path.is_dir() else path
        data = bytearray(weights.read_bytes())
        data[offset] ^= 1
        weights.write_bytes(data)
        return proof.prove_model(path, *args, **kwargs)

    return spoiled


@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_one_wrong_bit_is_found(
    tmp_path: Path, bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(bundle, tmp_path / name, threads=1)
    before = contents(tmp_path / name)
    monkeypatch.setattr(job, "prove_model", spoil(-100))
    with pytest.raises(BadFile, match="are not those that were written"):
        export_model(bundle, tmp_path / name, "f16", threads=1)
    assert contents(tmp_path / name) == before


def test_a_matrix_in_another_order_is_found(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pophood.families.naming.permute_rope_rows", lambda values, head_dim: values)
    with pytest.raises(BadFile, match=r"the values of blocks\.0\.attn\.q\.weight differ"):
        export_model(bundle, tmp_path / "out.gguf", threads=1)
    with pytest.raises(EngineError, match=r"KL .*bound 0\.03"):
        export_model(bundle, tmp_path / "out.gguf", "q8_0", threads=1)
    assert contents(tmp_path / "out") == {}


def test_other_words_are_found(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = dict.fromkeys(CUT_BY_STEPS, CUT_BY_NAME["gpt-2"])
    monkeypatch.setattr("pophood.export.gguf.gguf_tokenizer.CUT_BY_STEPS", cuts)
    with pytest.raises(BadFile, match="the tokenizer gives other ids"):
        export_model(bundle, tmp_path / "out.gguf", threads=1)


def test_the_divergence_is_that_of_the_formula() -> None:
    random = np.random.default_rng(0)
    one, other = random.standard_normal((2, 50)).astype(np.float32) * 3
    p, q = (np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum() for row in (one, other))
    assert proof.divergence(one, other) == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-10)
    readings = [
        proof.Reading(np.stack([one, one]), (1, 2, 3)),
        proof.Reading(np.stack([one, other]), (1, 2, 9)),
    ]
    found = proof.compare(readings[0], readings[1], 5, "q4_0")
    assert (found.greedy, found.greedy_of, found.tensors, found.bits_equal) == (2, 3, 5, False)
    assert found.kl == pytest.approx(proof.divergence(one, other) / 2)
