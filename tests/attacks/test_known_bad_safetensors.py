"""Every way in which a safetensors file or an index can lie, each refused with its own message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, PophoodError, Unsupported
from pophood.formats import open_safetensors, open_sharded
from tests.formats.safetensors_bytes import floats, packed, sharded


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def one(value: Any, data: int = 8) -> bytes:
    """Return a file with one tensor w, described by `value`."""
    return packed({"w": value}, bytes(data))


def several(*offsets: tuple[int, int], data: int) -> bytes:
    header = {f"t{i}": entry("U8", [end - begin], [begin, end]) for i, (begin, end) in enumerate(offsets)}
    return packed(header, bytes(data))


# kind of lie -> (the file, what the refusal says)
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "the file is empty"),
    "seven bytes": (lambda: bytes(7), "has 7 bytes, wanted at least the 8 of a header's length"),
    "header of 0": (lambda: bytes(8), "the header begins with b'', wanted an opening brace"),
    "header over 100 MB": (
        lambda: packed(b"{}", length=100_000_001),
        "claims a header of 100,000,001 bytes, wanted at most 100,000,000",
    ),
    "header of 2^64 - 1": (
        lambda: packed(b"{}", length=2**64 - 1),
        "claims a header of 18,446,744,073,709,551,615",
    ),
    "header longer than the file": (
        lambda: packed(b"{}", padding=0, length=3),
        "claims a header of 3 bytes, but has 2 after the length",
    ),
    "header a list": (lambda: packed([]), "the header begins with b'[', wanted an opening brace"),
    "header after a space": (lambda: packed(b" {}"), "the header begins with b' ', wanted an opening brace"),
    "header cut": (lambda: packed(b'{"w": '), "the header is not JSON (Expecting value"),
    "header and more": (lambda: packed(b"{}{}"), "the header is not JSON (Extra data"),
    "header not UTF-8": (lambda: packed(b'{"\xff": 1}'), "the header is not UTF-8 at byte 2"),
    "tensor twice": (
        lambda: packed(b'{"w":%b,"w":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
        "the header has the name 'w' twice",
    ),
    "field twice": (
        lambda: packed(b'{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        "the header has the name 'dtype' twice",
    ),
    "NaN": (lambda: packed(b'{"w": NaN}'), "the header holds NaN, which is not JSON"),
    "Infinity": (lambda: packed(b'{"w": -Infinity}'), "the header holds -Infinity, which is not JSON"),
    "nested too deeply": (lambda: packed(b'{"w":' + b"[" * 100_000), "the header is nested too deeply"),
    "endless number": (
        lambda: packed(b'{"w":' + b"9" * 5_000 + b"}"),
        "the header is not JSON (Exceeds the limit",
    ),
    "metadata a list": (lambda: packed({"__metadata__": []}), "__metadata__ is not an object of texts"),
    "metadata false": (lambda: packed({"__metadata__": False}), "__metadata__ is not an object"),
    "metadata a number": (
        lambda: packed({"__metadata__": {"n": 1}}),
        "__metadata__ 'n' is int, wanted a text",
    ),
    "metadata nested": (
        lambda: packed({"__metadata__": {"n": {}}}),
        "__metadata__ 'n' is dict, wanted a text",
    ),
    "metadata half a pair": (
        lambda: packed({"__metadata__": {"n": "\ud800"}}).replace(b"\xed\xa0\x80", b"\\ud800"),
        "__metadata__ 'n' has half a surrogate pair",
    ),
    "name half a pair": (
        lambda: packed(b'{"\\udc00": 1}'),
        r"tensor '\udc00' has half a surrogate pair in its name",
    ),
    "tensor a list": (lambda: one([]), "tensor 'w' is list, wanted an object"),
    "tensor null": (lambda: one(None), "tensor 'w' is NoneType, wanted an object"),
    "field missing": (
        lambda: one({"dtype": "F32", "shape": [2]}),
        "tensor 'w' has the fields 'dtype, shape', wanted dtype, shape and data_offsets",
    ),
    "unknown field": (
        lambda: one(entry(strides=[1])),
        "the fields 'data_offsets, dtype, shape, strides', wanted",
    ),
    "dtype a number": (lambda: one(entry(32)), "tensor 'w' has a dtype that is not a text"),
    "dtype unknown": (lambda: one(entry("F33")), "tensor 'w' has dtype 'F33'; known are F64, I64"),
    "dtype in lower case": (lambda: one(entry("f32")), "tensor 'w' has dtype 'f32'; known are"),
    "shape negative": (
        lambda: one(entry(shape=[-2])),
        "tensor 'w' has shape '[-2]', wanted a list of whole numbers",
    ),
    "shape a fraction": (lambda: one(entry(shape=[2.0])), "tensor 'w' has shape '[2.0]', wanted a list"),
    "shape of truth": (
        lambda: one(entry(shape=[True, 2])),
        "tensor 'w' has shape '[True, 2]', wanted a list",
    ),
    "shape a number": (lambda: one(entry(shape=2)), "tensor 'w' has shape '2', wanted a list"),
    "shape null": (lambda: one(entry(shape=None)), "tensor 'w' has shape 'None', wanted a list"),
    "33 dimensions": (
        lambda: one(entry(shape=[2] + [1] * 32)),
        "tensor 'w' has 33 dimensions, wanted at most 32",
    ),
    "shape overflows": (
        lambda: one(entry(shape=[2**32, 2**32])),
        "tensor 'w' of shape '[4294967296, 4294967296]' overflows",
    ),
    "shape overflows beside a zero": (
        lambda: one(entry(shape=[0, 2**62, 2**62], offsets=[0, 0]), 0),
        "tensor 'w' of shape '[0, 4611686018427387904, 4611686018427387904]' overflows",
    ),
    "three offsets": (
        lambda: one(entry(offsets=[0, 8, 8])),
        "has data_offsets '[0, 8, 8]', wanted [begin, end]",
    ),
    "negative offset": (
        lambda: one(entry(offsets=[-8, 0])),
        "has data_offsets '[-8, 0]', wanted [begin, end]",
    ),
    "offsets a text": (lambda: one(entry(offsets="08")), "has data_offsets '08', wanted [begin, end]"),
    "begin after end": (lambda: one(entry(offsets=[8, 0])), "tensor 'w' begins at 8, after its end at 0"),
    "too few bytes": (
        lambda: one(entry(offsets=[0, 4]), 4),
        "tensor 'w' of F32 and shape [2] needs 8 bytes, but has 4",
    ),
    "too many bytes": (
        lambda: one(entry(offsets=[0, 16]), 16),
        "tensor 'w' of F32 and shape [2] needs 8 bytes, but has 16",
    ),
    "half a byte": (lambda: one(entry("F4", [3], [0, 1]), 1), "tensor 'w' of F4 ends inside a byte"),
    "past the end": (
        lambda: one(entry(), 7),
        "tensor 'w' ends at 8, past the end of the data, which has 7 bytes: the file is truncated",
    ),
    "offset 2^60": (
        lambda: one(entry(offsets=[2**60, 2**60 + 8])),
        "tensor 'w' ends at 1,152,921,504,606,846,984, past the end",
    ),
    "overlap": (
        lambda: several((0, 8), (4, 12), data=12),
        "tensor 't1' at 4 overlaps tensor 't0', which ends at 8",
    ),
    "same place": (lambda: several((0, 8), (0, 8), data=8), "tensor 't1' at 0 overlaps tensor 't0'"),
    "hole before the first": (
        lambda: several((4, 8), data=8),
        "4 bytes between the beginning of the data and tensor 't0' belong to no tensor",
    ),
    "hole between": (
        lambda: several((0, 4), (8, 12), data=12),
        "4 bytes between tensor 't0' and tensor 't1' belong to no tensor",
    ),
    "bytes after the last": (
        lambda: several((0, 8), data=9),
        "1 bytes after tensor 't0' belong to no tensor",
    ),
    "data without tensors": (
        lambda: packed({}, b"x"),
        "1 bytes after the beginning of the data belong to no tensor",
    ),
}


def refused(path: Path, action: Callable[[Path], object], words: str) -> None:
    with pytest.raises(PophoodError) as refusal:
        action(path)
    text = str(refusal.value)
    assert words in text
    assert text.isprintable() and type(refusal.value) in (BadFile, Unsupported)
    assert re.search("fetch|known are|wanted a plain|convert it", text), "it says what to do next"


@pytest.mark.parametrize("kind", BAD)
def test_a_known_bad_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    make, words = BAD[kind]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(make())
    refused(path, open_safetensors, words)


def test_the_kinds_are_told_apart() -> None:
    assert len(BAD) + len(BAD_INDEX) >= 20
    assert len({words for _, words in BAD.values()}) == len(BAD)


def test_the_good_twin_of_the_bad_ones_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.safetensors"
    for content in (one(entry()), several((0, 8), (8, 12), data=12), several((8, 12), (0, 8), data=12)):
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        with open_safetensors(path) as file:
            assert len(file)


# Index files -------------------------------------------------------------------------------------------

WEIGHT_MAP = {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}
BAD_INDEX: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{", "the index is not JSON"),
    "a list": ([], "the index has no weight_map"),
    "no weight_map": ({"metadata": {}}, "the index has no weight_map"),
    "weight_map empty": ({"weight_map": {}}, "the index has no weight_map"),
    "weight_map a list": ({"weight_map": ["a.safetensors"]}, "the index has no weight_map"),
    "a number for a file": ({"weight_map": {"x": 1}}, "weight_map gives 'x' no file name"),
    "tensor twice": (
        b'{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}',
        "the index has the name 'x' twice",
    ),
    "up and out": (
        {"weight_map": {"x": "../a.safetensors"}},
        "an index names '../a.safetensors'; wanted a plain",
    ),
    "absolute": (
        {"weight_map": {"x": "/etc/passwd"}},
        "an index names '/etc/passwd'; wanted a plain file name",
    ),
    "backslash": (
        {"weight_map": {"x": "..\\a.safetensors"}},
        r"an index names '..\\a.safetensors'; wanted a plain",
    ),
    "drive": ({"weight_map": {"x": "C:a.safetensors"}}, "an index names 'C:a.safetensors'; wanted a plain"),
    "below": ({"weight_map": {"x": "b/a.safetensors"}}, "an index names 'b/a.safetensors'; wanted a plain"),
    "the folder": ({"weight_map": {"x": "."}}, "an index names '.'; wanted a plain file name"),
    "no name": ({"weight_map": {"x": ""}}, "an index names ''; wanted a plain file name"),
    "missing shard": ({"weight_map": {"x": "c.safetensors"}}, "the file 'c.safetensors' is missing"),
    "tensor not in its shard": (
        {"weight_map": WEIGHT_MAP | {"q": "b.safetensors"}},
        "lacks 1 tensors compared with model.safetensors.index.json, first 'q'",
    ),
    "tensor not in the index": (
        {"weight_map": {"x": "a.safetensors", "z": "b.safetensors"}},
        "also holds 1 tensors compared with model.safetensors.index.json, first 'y'",
    ),
    "too many shards": (
        {"weight_map": {f"x{i}": f"{i}.safetensors" for i in range(513)}},
        "names 513 shards, wanted at most 512",
    ),
    "shard a pickle": (
        {"weight_map": {"x": "pickle.safetensors"}},
        "a Python pickle: opening one can run any program",
    ),
    "shard an index": ({"weight_map": {"x": "model.safetensors.index.json"}}, "is not a safetensors file"),
}


@pytest.mark.parametrize("kind", BAD_INDEX)
def test_a_bad_index_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(floats({"x": [7.0]}))
    folder = tmp_path / "model"
    folder.mkdir()
    index = sharded(folder, {"a.safetensors": {"x": [1.0], "y": [2.0]}, "b.safetensors": {"z": [3.0]}})
    (folder / "pickle.safetensors").write_bytes(b"\x80\x04N.")
    content, words = BAD_INDEX[kind]
    index.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    refused(index, open_sharded, words)
