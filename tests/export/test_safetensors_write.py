"""Our safetensors writer gives the reference writer's bytes, and survives a full disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.errors import BadInput, PophoodError
from pophood.formats import open_safetensors
from pophood.formats.safetensors_write import DTYPES, Pending, write_safetensors
from tests.hub.test_disk_full import FullDisk

RANDOM = np.random.default_rng(0)


def some(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    return RANDOM.integers(0, 2, shape).astype(dtype)


ARRAYS = {
    "z.bias": some((3,), "f4"),
    "a.weight": some((3, 5), "f4"),
    "é": some((2,), "f2"),
    "ids": some((4,), "i8"),
    "mask": some((7,), "?"),
    "scalar": np.array(1.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "small": some((9,), "u1"),
    "double": some((2, 2), "f8"),
    "short": some((2,), "i2"),
    "byte": some((2,), "i1"),
    "whole": some((2,), "i4"),
    "unsigned": some((2,), "u4"),
    "half": some((2,), "u2"),
    "long": some((2,), "u8"),
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BF16"}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_bytes_are_the_reference_s(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    from safetensors.numpy import save

    path = tmp_path / "a.safetensors"
    tensors = {name: (NAMES[values.dtype], values) for name, values in ARRAYS.items()}
    size = write_safetensors(path, tensors, metadata)
    assert path.read_bytes() == save(dict(ARRAYS), metadata)
    assert path.stat().st_size == size
    back = open_safetensors(path).tensors
    assert back["a.weight"].values().tobytes() == ARRAYS["a.weight"].tobytes()


def test_bf16_is_torch_s(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save

    values = torch.randn(5, 7).to(torch.bfloat16)
    bits = values.view(torch.int16).numpy().view(np.uint16)
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": ("BF16", bits), "h": ("F16", np.ones(3, np.float16))})
    assert path.read_bytes() == save({"w": values, "h": torch.ones(3, dtype=torch.float16)})
    assert torch.equal(load_file(path)["w"], values)


def test_an_open_file_and_late_tensors(tmp_path: Path) -> None:
    made: list[str] = []

    def make(name: str) -> np.ndarray[Any, Any]:
        made.append(name)
        return np.asfortranarray(ARRAYS["a.weight"])

    pending = {name: Pending("F32", (3, 5), lambda name=name: make(name)) for name in ("b", "a")}  # type: ignore[misc]
    with (tmp_path / "late").open("wb") as file:
        write_safetensors(file, pending)
    assert made == ["a", "b"]
    held = dict.fromkeys(("a", "b"), ("F32", ARRAYS["a.weight"]))
    seen: list[int] = []
    write_safetensors(tmp_path / "held", held, wrote=lambda name, piece: seen.append(len(piece)))
    assert (tmp_path / "late").read_bytes() == (tmp_path / "held").read_bytes()
    assert seen == [60, 60]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a": ("F32", np.zeros(2))}, "float64"),
        ({"a": ("F8_E4M3", np.zeros(2))}, "F8_E4M3"),
        ({"a": Pending("F32", (3,), lambda: np.zeros(2, np.float32))}, r"\(2,\)"),
        ({"__metadata__": ("U8", np.zeros(2, np.uint8))}, "__metadata__"),
    ],
)
def test_what_is_refused(tmp_path: Path, tensors: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        write_safetensors(tmp_path / "a", tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors: dict[str, tuple[str, np.ndarray[Any, Any]]] = {
        "a": ("F32", np.ones(1000, np.float32)),
        "b": ("F16", np.ones(10, np.float16)),
    }
    failed: list[str] = []
    for fail_at in range(1, 50):
        path.write_bytes(b"older")
        disk = FullDisk(fail_at)
        with disk.in_place():
            try:
                write_safetensors(path, tensors)
            except PophoodError as error:
                assert "the disk is full: needed" in str(error)
                assert "free" in str(error)
        if not disk.failed:
            break
        failed.append(disk.failed)
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        if len(failed) < 6:  # the last is the folder's own fsync, after the rename
            assert path.read_bytes() == b"older"
    assert [what.split()[0] for what in failed] == [
        "open",
        "write",
        "write",
        "write",
        "fsync",
        "replace",
        "fsync",
    ]


def test_the_room_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pophood.formats.safetensors_write.free_disk", lambda path: 100)
    with pytest.raises(PophoodError, match=r"needed 4,0.. bytes, free 100 bytes"):
        write_safetensors(tmp_path / "a", {"a": ("F32", np.ones(1000, np.float32))})
    assert list(tmp_path.iterdir()) == []
