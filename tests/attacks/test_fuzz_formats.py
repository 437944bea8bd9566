"""Mutated GGUF, safetensors and index files: no crash, no hang, no untyped error, memory like the file's.

If we accept a mutated file, the reference readers must accept it too, with the same bytes for every tensor.
1,000 of each in `make test`; `POPHOOD_FUZZ=100000` for the record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.formats import GGUFFile, SafetensorsFile, identify, open_gguf, open_safetensors, open_sharded
from pophood.formats.quant import BLOCKS
from pophood.formats.safetensors import DTYPE_BITS
from tests.attacks.mutate import (
    Case,
    Field,
    Seed,
    Watch,
    fuzz_count,
    json_mutation,
    json_mutations,
    mutations,
    peak_memory,
)
from tests.formats import gguf_bytes as g
from tests.formats.gguf_bytes import Key, gguf, nbytes, placed
from tests.formats.safetensors_bytes import packed, sharded

ROOM = 64 << 20  # what the process may grow by over a whole run
TIMEOUT = 1_800


def use(file: GGUFFile | SafetensorsFile) -> None:
    """Use an accepted file: decode, check and show its tensors."""
    repr(file.metadata)
    for tensor in file.tensors.values():
        repr(tensor)
        assert tensor.data.nbytes == tensor.nbytes
        if tensor.type in BLOCKS:
            assert tensor.values().shape == tensor.shape
            assert tensor.decode().size == tensor.size
            tensor.nonfinite()


def parse(opened: Callable[[Path], GGUFFile | SafetensorsFile], path: Path) -> None:
    opened(path).close()


def fresh(path: Path, data: bytes) -> Path:
    """Write a new file under the old name; an earlier mapping must not see the new bytes."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


# GGUF --------------------------------------------------------------------------------------------------


def gguf_seeds() -> list[Seed]:
    """Make one seed per group of value types and per tensor type, so small that a mutation hits something."""
    rng = np.random.default_rng(0)
    numbers = [Key(f"n{kind}", kind, 1) for kind in g.FORMATS]
    arrays = [Key(f"a{kind}", g.ARRAY, (kind, [0, 1, 1])) for kind in g.FORMATS]
    texts = [
        Key("general.architecture", g.STRING, "llama"),
        Key("tokenizer.ggml.tokens", g.ARRAY, (g.STRING, ["<s>", "a", "", "Ġthe", "é"])),
        Key("split.count", g.U16, 1),
    ]
    nested = Key("grid", g.ARRAY, (g.ARRAY, [(g.U8, [1, 2]), (g.STRING, ["x", "y"])]))
    words = Key("tokenizer.ggml.tokens", g.ARRAY, (g.STRING, [f"Ġword{i}" for i in range(300)]))
    seeds = [gguf(numbers, name="numbers"), gguf(arrays, name="arrays"), gguf([words], name="words")]
    seeds.append(gguf([*texts, nested], version=2, name="texts"))
    for kind, layout in BLOCKS.items():
        shape = (2, layout.elements)
        parts = [("blk.0.w", kind, shape, rng.bytes(nbytes(kind, shape))), ("b", "F32", (3,), bytes(12))]
        alignment = 64 if kind == "F32" else 32
        keys = [Key("general.alignment", g.U32, 64)] if kind == "F32" else []
        infos, data = placed([*parts, ("s", "F16", (), bytes(2))], alignment)
        seeds.append(gguf(keys, infos, data, alignment=alignment, name=kind))
    return seeds


def same_as_ggml(path: Path, file: GGUFFile) -> None:
    """Check that gguf.GGUFReader, which is laxer, also accepts the file and sees the same tensors."""
    library = pytest.importorskip("gguf", reason="needs Python package: gguf")
    if any(
        isinstance(value, list) and value and not isinstance(value[0], str)
        for value in file.metadata.values()
    ):
        return  # it flattens nested arrays, and misreads some
    reader = library.GGUFReader(path)
    assert [tensor.name for tensor in reader.tensors] == list(file.tensors)
    for tensor in reader.tensors:
        ours = file.tensors[tensor.name]
        assert (ours.type, ours.size) == (tensor.tensor_type.name, tensor.n_elements)
        assert ours.data.tobytes() == tensor.data.tobytes()


@pytest.mark.timeout(TIMEOUT)
def test_mutated_gguf(tmp_path: Path, record_property: Any) -> None:
    watch, before = Watch(), peak_memory()
    compared = 0
    for index, case in enumerate(mutations(gguf_seeds(), fuzz_count(), run="gguf")):
        path = fresh(tmp_path / "case.gguf", case.data)
        if watch.attempt(case, partial(parse, open_gguf, path)):
            with open_gguf(path) as file:
                use(file)
                if index < 5_000:
                    same_as_ggml(path, file)
                    compared += 1
    assert watch.accepted > fuzz_count() // 100 and watch.refused.total() > fuzz_count() // 2
    assert peak_memory() - before < ROOM
    record_property("fuzz", watch.summary("gguf"))
    print(watch.summary("gguf"), f"{compared:,} compared with ggml's reader")


# safetensors -------------------------------------------------------------------------------------------


def safetensors_trees() -> list[tuple[dict[str, Any], bytes]]:
    """Return headers and data of good files of every dtype."""
    files = []
    names = list(DTYPE_BITS)
    for start in range(0, len(names), 3):
        header: dict[str, Any] = {"__metadata__": {"format": "pt", "é": "x"}}
        data = b""
        for position, name in enumerate(names[start : start + 3]):
            shape = [[2, 4], [8], [1, 2, 4]][position]
            end = len(data) + DTYPE_BITS[name]
            header[f"blocks.{position}.{name}"] = {
                "dtype": name,
                "shape": shape,
                "data_offsets": [len(data), end],
            }
            data += bytes(range(end - len(data)))
        files.append((header, data))
    return files


def safetensors_cases(count: int) -> Any:
    """Mutate alternately the file as bytes, and its header as a tree with a correct length."""
    trees = safetensors_trees()
    seeds = []
    for header, data in trees:
        whole = packed(header, data)
        length = len(whole) - len(data) - 8
        fields = (Field(0, 8, "number"), Field(8, length, "text"), Field(8 + length, len(data), "data"))
        seeds.append(Seed("bytes", whole, fields))
    binary = mutations(seeds, count, run="safetensors")
    for index in range(count):
        if index % 2:
            yield next(binary)
        else:
            header, data = trees[index // 2 % len(trees)]
            case = json_mutation([header], "safetensors", index)
            yield Case(case.label, packed(case.data, data))


def reference_verdict(data: bytes) -> dict[str, Any] | None:
    """Return the tensors that the safetensors package reads, or None if it refuses."""
    library = pytest.importorskip("safetensors", reason="needs Python package: safetensors")
    try:
        return dict(library.deserialize(data))
    except library.SafetensorError:
        return None


@pytest.mark.timeout(TIMEOUT)
def test_mutated_safetensors(tmp_path: Path, record_property: Any) -> None:
    watch, before = Watch(), peak_memory()
    stricter = 0
    for case in safetensors_cases(fuzz_count()):
        path = fresh(tmp_path / "case.safetensors", case.data)
        accepted = watch.attempt(case, partial(parse, open_safetensors, path))
        theirs = reference_verdict(case.data)
        if accepted:
            assert theirs is not None, f"{case.label}: the reference refuses what we accept"
            with open_safetensors(path) as file:
                use(file)
                assert file.tensors.keys() == theirs.keys()
                for name, tensor in file.tensors.items():
                    assert tensor.data.tobytes() == bytes(theirs[name]["data"])
        else:
            stricter += theirs is not None
    assert watch.accepted > fuzz_count() // 100 and watch.refused.total() > fuzz_count() // 2
    assert peak_memory() - before < ROOM
    record_property("fuzz", watch.summary("safetensors"))
    print(watch.summary("safetensors"), f"{stricter:,} of them taken by the reference")


@pytest.mark.timeout(TIMEOUT)
def test_mutated_shard_index(tmp_path: Path, record_property: Any) -> None:
    watch = Watch(slack=1 << 19)
    (tmp_path / "secret.safetensors").write_bytes(b"outside")
    folder = tmp_path / "model"
    folder.mkdir()
    index = sharded(folder, {"a.safetensors": {"x": [1.0], "y": [2.0]}, "b.safetensors": {"z": [3.0]}})
    document = json.loads(index.read_text())
    up = {**document, "weight_map": {**document["weight_map"], "x": "../secret.safetensors"}}
    for case in json_mutations([document, document, up], fuzz_count() // 5, run="index"):
        fresh(index, case.data)
        if watch.attempt(case, partial(parse, open_sharded, index)):
            with open_sharded(index) as file:
                use(file)
                assert set(file) <= {"x", "y", "z"}
    assert watch.refused.total() > fuzz_count() // 10
    record_property("fuzz", watch.summary("shard index"))
    print(watch.summary("shard index"))


def test_any_bytes_under_any_name_are_identified_or_refused(tmp_path: Path) -> None:
    watch = Watch()
    seeds = [
        *gguf_seeds()[:2],
        Seed("zip", b"PK\x03\x04" + bytes(40)),
        Seed("pickle", b"\x80\x04N."),
        Seed("no", b""),
    ]
    names = ("m.gguf", "m.safetensors", "m.bin", "m.npy", "m.index.json", "m")
    for index, case in enumerate(mutations(seeds, 1_000, run="identify")):
        path = fresh(tmp_path / names[index % len(names)], case.data)
        watch.attempt(case, partial(identify, path))
    assert watch.refused.total() and watch.accepted
