"""Every way in which a GGUF file can lie, each refused with its own message (test-gguf.cpp has 26)."""

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pophood.errors import BadFile, PophoodError, Unsupported
from pophood.formats import open_gguf
from pophood.formats.gguf import GGML_TYPES
from pophood.formats.quant import BLOCKS
from tests.formats import gguf_bytes as g
from tests.formats.gguf_bytes import Info, Key, gguf, placed

ONE = ("w", "F32", (8,), bytes(32))
F32 = 0


def with_key(key: Key) -> bytes:
    return gguf([key]).data


def with_tensor(info: Info, data: bytes = bytes(64)) -> bytes:
    return gguf([], [info], data).data


def two(first: int, second: int, data: int = 96) -> bytes:
    """Return a file with tensors a and b of 32 bytes each at two offsets."""
    return gguf([], [Info("a", [8], F32, first), Info("b", [8], F32, second)], bytes(data)).data


def good() -> bytes:
    infos, data = placed([ONE])
    return gguf([Key("k", g.U32, 7)], infos, data).data


def nested(depth: int) -> Key:
    value: tuple[int, list[object]] = (g.U8, [1])
    for _ in range(depth - 1):
        value = (g.ARRAY, [value])
    return Key("deep", g.ARRAY, value)


# kind of lie -> (the file, what the refusal says)
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "the file is empty"),
    "three bytes": (lambda: b"GGU", "begins with b'GGU', wanted b'GGUF'"),
    "bad magic": (lambda: gguf(magic=b"FUGG").data, "begins with b'FUGG', wanted b'GGUF'"),
    "magic alone": (lambda: b"GGUF", "the version needs 4 bytes at offset 4, but the file ends after 0"),
    "version 0": (lambda: gguf(version=0).data, "has version 0; versions begin at 1"),
    "version 1": (lambda: gguf(version=1).data, "GGUF version 1; pophood reads 2 and 3"),
    "future version": (lambda: gguf(version=4).data, "GGUF version 4; pophood reads 2 and 3"),
    "big-endian": (
        lambda: gguf(version=3 << 24).data,
        "a big-endian GGUF file; pophood reads little-endian ones",
    ),
    "cut in the counts": (
        lambda: gguf().data[:20],
        "the number of keys needs 8 bytes at offset 16, but the file",
    ),
    "too many tensors": (lambda: gguf(n_tensors=65_537).data, "claims 65,537 tensors, wanted at most 65,536"),
    "2^63 tensors": (lambda: gguf(n_tensors=1 << 63).data, "claims 9,223,372,036,854,775,808 tensors"),
    "too many keys": (lambda: gguf(n_keys=65_537).data, "claims 65,537 keys, wanted at most 65,536"),
    "2^64 - 1 keys": (lambda: gguf(n_keys=2**64 - 1).data, "claims 18,446,744,073,709,551,615 keys"),
    "more keys than bytes": (lambda: gguf(n_keys=9).data, "claims 9 keys, but only 0 bytes remain"),
    "more tensors than bytes": (
        lambda: gguf(n_tensors=2).data,
        "claims 2 tensors, but only 0 bytes remain",
    ),
    "one key too few": (
        lambda: gguf([Key("k", g.U8, 1)], n_keys=2).data + bytes(20),
        "key 1 has an empty name",
    ),
    "key size 2^63": (
        lambda: gguf(n_keys=1).data + struct.pack("<Q", 1 << 63) + bytes(20),
        "the name of key 0 claims 9,223,372,036,854,775,808 bytes, wanted at most 65,535",
    ),
    "key past the end": (
        lambda: gguf(n_keys=1).data + struct.pack("<Q", 999) + bytes(20),
        "the name of key 0 needs 999 bytes at offset 32, but the file ends after 20",
    ),
    "empty key": (lambda: with_key(Key("", g.U32, 1)), "key 0 has an empty name"),
    "key not UTF-8": (
        lambda: with_key(Key(b"k\xff", g.U32, 1)),
        "the name of key 0 is not UTF-8 at its byte 1",
    ),
    "key twice": (
        lambda: gguf([Key("k", g.U8, 1), Key("k", g.U8, 1)]).data,
        "the key 'k' occurs twice",
    ),
    "value type 13": (
        lambda: with_key(Key("k", 13, bytes(8))),
        "key 'k' has value type 13; the format defines 0 to 12",
    ),
    "value type 2^32 - 1": (
        lambda: with_key(Key("k", 2**32 - 1, bytes(8))),
        "key 'k' has value type 4294967295",
    ),
    "value cut": (lambda: gguf([Key("long", g.U64, 1)]).data[:-3], "key 'long' needs 8 bytes at offset"),
    "boolean 2": (
        lambda: with_key(Key("k", g.BOOL, 2)),
        "key 'k' is a boolean with the value 2, wanted 0 or 1",
    ),
    "boolean 7 in an array": (
        lambda: with_key(Key("k", g.ARRAY, (g.BOOL, [0, 1, 7]))),
        "key 'k' is a boolean with the value 7, wanted 0 or 1",
    ),
    "text of 2^62": (
        lambda: with_key(Key("k", g.U64, 1 << 62)).replace(
            struct.pack("<I", g.U64), struct.pack("<I", g.STRING)
        ),
        "key 'k' claims 4,611,686,018,427,387,904 bytes, wanted at most 67,108,864",
    ),
    "text past the end": (
        lambda: with_key(Key("k", g.U64, 5)).replace(struct.pack("<I", g.U64), struct.pack("<I", g.STRING)),
        "key 'k' needs 5 bytes at offset",
    ),
    "text not UTF-8": (lambda: with_key(Key("k", g.STRING, b"ab\xc3")), "key 'k' is not UTF-8 at its byte 2"),
    "array type 13": (lambda: with_key(Key("k", g.ARRAY, (13, []))), "key 'k' has value type 13"),
    "array of 2^61 numbers": (
        lambda: with_key(Key("k", g.ARRAY, (g.F64, []), claimed=1 << 61)),
        "key 'k' claims 2,305,843,009,213,693,952 numbers, wanted at most 4,194,304",
    ),
    "array past the end": (
        lambda: with_key(Key("k", g.ARRAY, (g.U32, [1, 2]), claimed=3)),
        "key 'k' needs 12 bytes at offset",
    ),
    "2^40 texts": (
        lambda: with_key(Key("k", g.ARRAY, (g.STRING, []), claimed=1 << 40)),
        "key 'k' claims 1,099,511,627,776 strings, wanted at most 1,048,576",
    ),
    "more texts than bytes": (
        lambda: with_key(Key("k", g.ARRAY, (g.STRING, ["a"]), claimed=1_000)),
        "key 'k' claims 1,000 strings in 9 remaining bytes",
    ),
    "text in an array past the end": (
        lambda: with_key(Key("k", g.ARRAY, (g.STRING, ["a", "bcd"])))[:-2],
        "string 1 of key 'k' needs 3 bytes at offset",
    ),
    "text in an array not UTF-8": (
        lambda: with_key(Key("k", g.ARRAY, (g.STRING, ["a", b"\xff", "c"]))),
        "string 1 of key 'k' is not UTF-8 at its byte 0",
    ),
    "arrays too deep": (lambda: with_key(nested(5)), "key 'deep' nests arrays deeper than 4"),
    "arrays too many": (
        lambda: with_key(Key("k", g.ARRAY, (g.ARRAY, []), claimed=5_000)),
        "key 'k' claims 5,000 arrays in an array, wanted at most 4,096",
    ),
    "alignment 0": (
        lambda: gguf([Key("general.alignment", g.U32, 0)]).data,
        "general.alignment is 0, wanted a power of two",
    ),
    "alignment 33": (
        lambda: gguf([Key("general.alignment", g.U32, 33)]).data,
        "general.alignment is 33, wanted a power of two",
    ),
    "alignment -8": (
        lambda: gguf([Key("general.alignment", g.I32, -8)]).data,
        "general.alignment is -8, wanted",
    ),
    "alignment a text": (
        lambda: gguf([Key("general.alignment", g.STRING, "32")]).data,
        "general.alignment is a str",
    ),
    "alignment a float": (
        lambda: gguf([Key("general.alignment", g.F32, 32)]).data,
        "general.alignment is a float",
    ),
    "alignment an array": (
        lambda: gguf([Key("general.alignment", g.ARRAY, (g.U32, [32]))]).data,
        "general.alignment is a ndarray",
    ),
    "alignment beyond the file": (
        lambda: gguf([Key("general.alignment", g.U32, 1 << 20)], [Info("w", [8], F32, 0)], bytes(32)).data,
        "the data should begin at 1,048,576, but the file has",
    ),
    "one part of three": (
        lambda: gguf([Key("split.count", g.U16, 3), Key("split.no", g.U16, 1)]).data,
        "is part 2 of a model in 3 parts, which are found by their names: rename it to NAME-00002-of",
    ),
    "tensor name too long": (
        lambda: with_tensor(Info("n" * 65, [8], F32, 0)),
        "the name of tensor 0 claims 65 bytes, wanted at most 64",
    ),
    "tensor name empty": (lambda: with_tensor(Info("", [8], F32, 0)), "tensor 0 has an empty name"),
    "tensor name not UTF-8": (
        lambda: with_tensor(Info(b"\xc3(", [8], F32, 0)),
        "the name of tensor 0 is not UTF-8 at its byte 0",
    ),
    "tensor twice": (
        lambda: gguf([], [Info("w", [8], F32, 0), Info("w", [8], F32, 32)], bytes(64)).data,
        "the tensor 'w' occurs twice",
    ),
    "tensor list cut": (
        lambda: good()[:60],
        "the shape, type and place of tensor 'w' needs 20 bytes at offset 54, but the file ends after 6",
    ),
    "five dimensions": (
        lambda: with_tensor(Info("w", [1] * 5, F32, 0)),
        "tensor 'w' has 5 dimensions, wanted at most 4",
    ),
    "2^31 dimensions": (
        lambda: with_tensor(Info("w", [8], F32, 0, dimensions=1 << 31)),
        "tensor 'w' has 2,147,483,648 dimensions",
    ),
    "dimension 0": (lambda: with_tensor(Info("w", [8, 0], F32, 0)), "tensor 'w' has a dimension of size 0"),
    "dimension 2^63": (
        lambda: with_tensor(Info("w", [1 << 63], F32, 0)),
        "has a dimension of 9,223,372,036,854,775,808, which is negative",
    ),
    "shape overflows 64 bits": (
        lambda: with_tensor(Info("w", [1 << 32, 1 << 32], F32, 0)),
        "tensor 'w' of shape (4294967296, 4294967296) overflows",
    ),
    "shape overflows to nothing": (
        lambda: with_tensor(Info("w", [1 << 62, 1 << 62, 1 << 62, 4], F32, 0)),
        "overflows: 3.92e+56 values",
    ),
    "rows no multiple of the block": (
        lambda: with_tensor(Info("w", [33, 32], 8, 0)),
        "tensor 'w' has rows of 33 values, wanted a multiple of 32 for Q8_0",
    ),
    "rows no multiple of a K block": (
        lambda: with_tensor(Info("w", [128, 2], 12, 0)),
        "tensor 'w' has rows of 128 values, wanted a multiple of 256 for Q4_K",
    ),
    "scalar of a block type": (lambda: with_tensor(Info("w", [], 2, 0)), "tensor 'w' has rows of 1 values"),
    "unknown ggml type": (
        lambda: with_tensor(Info("w", [8], 99, 0)),
        "tensor 'w' has the unknown ggml type 99",
    ),
    "offset off the grid": (
        lambda: with_tensor(Info("w", [4], F32, 4)),
        "tensor 'w' is at offset 4, which is not a multiple of 32",
    ),
    "offset past the end": (
        lambda: with_tensor(Info("w", [8], F32, 1 << 20)),
        "tensor 'w' of 32 bytes at offset 1,048,576 reaches past the end of the data, which has 64 bytes",
    ),
    "offset near 2^64": (
        lambda: with_tensor(Info("w", [8], F32, 2**64 - 32)),
        "at offset 18,446,744,073,709,551,584 reaches past the end",
    ),
    "tensor larger than the file": (
        lambda: with_tensor(Info("w", [1 << 40], F32, 0)),
        "tensor 'w' of 4,398,046,511,104 bytes at offset 0 reaches past the end",
    ),
    "data cut by one byte": (lambda: good()[:-1], "tensor 'w' of 32 bytes at offset 0 reaches past the end"),
    "no data at all": (lambda: two(0, 32, 0), "tensor 'a' of 32 bytes at offset 0 reaches past the end"),
    "tensors overlap": (
        lambda: two(0, 0, 32),
        "tensor 'b' at offset 0 overlaps tensor 'a', which ends at 32",
    ),
    "tensors partly overlap": (
        lambda: gguf([], [Info("a", [16], F32, 0), Info("b", [8], F32, 32)], bytes(64)).data,
        "tensor 'b' at offset 32 overlaps tensor 'a', which ends at 64",
    ),
    "hole before the first": (
        lambda: with_tensor(Info("w", [8], F32, 32)),
        "32 bytes between the beginning of the data and tensor 'w' belong to no tensor",
    ),
    "hole between": (lambda: two(0, 64), "32 bytes between tensor 'a' and tensor 'b' belong to no tensor"),
    "bytes after the last": (
        lambda: good() + b"x",
        "1 bytes after the last tensor, tensor 'w', belong to no tensor",
    ),
    "one byte far behind the last": (
        lambda: good() + bytes(3 << 20) + b"x",
        "3,145,729 bytes after the last tensor, tensor 'w', belong to no tensor",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_known_bad_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    make, words = BAD[kind]
    path = tmp_path / "bad.gguf"
    path.write_bytes(make())
    with pytest.raises(PophoodError) as refusal:
        open_gguf(path)
    text = str(refusal.value)
    assert words in text
    assert text.startswith(str(path)) and text.isprintable(), "it names the file and stays on one line"
    assert type(refusal.value) in (BadFile, Unsupported)
    assert re.search("fetch|use|convert|join|name a|rename|pophood reads", text), "it says what to do next"


def test_the_kinds_are_told_apart() -> None:
    assert len(BAD) >= 40
    assert len({words for _, words in BAD.values()}) == len(BAD)


def test_the_good_twin_of_the_bad_ones_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(good())
    with open_gguf(path) as file:
        assert file.metadata == {"k": 7} and file.tensors["w"].shape == (8,)


@pytest.mark.parametrize("kind", sorted(set(GGML_TYPES.values()) - BLOCKS.keys()))
def test_types_without_a_decoder_are_refused_before_anything_is_allocated(tmp_path: Path, kind: str) -> None:
    number = next(number for number, name in GGML_TYPES.items() if name == kind)
    path = tmp_path / "typed.gguf"
    # claims 2^40 values: the type is named before the size is believed, or even compared
    path.write_bytes(with_tensor(Info("blk.0.w", [1 << 20, 1 << 20], number, 0)))
    tracemalloc.start()
    try:
        with pytest.raises(
            Unsupported, match=f"tensor 'blk.0.w' of type {kind}; pophood decodes F32, F16, BF16"
        ):
            open_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_first_refused_tensor_stands_for_the_others(tmp_path: Path) -> None:
    path = tmp_path / "typed.gguf"
    infos = [
        Info("a", [8], F32, 0),
        Info("b", [256], 21, 32),
        Info("c", [256], 39, 64),
        Info("d", [256], 21, 96),
    ]
    path.write_bytes(gguf([], infos, bytes(512)).data)
    words = re.escape("tensor 'b' (and 2 more tensors) of type IQ3_S, MXFP4; pophood decodes")
    with pytest.raises(Unsupported, match=words):
        open_gguf(path)


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "escape.gguf"
    path.write_bytes(with_tensor(Info("\x1b[2J\u202e\n", [0], F32, 0)))
    with pytest.raises(BadFile, match=r"tensor '\\x1b\[2J\\u202e\\n' has a dimension of size 0"):
        open_gguf(path)
