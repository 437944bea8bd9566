"""Good GGUF files are read exactly as by ggml's own Python reader; bad ones are in tests/attacks."""

from __future__ import annotations

import gc
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pophood
from pophood.errors import BadFile
from pophood.formats import open_gguf, strings
from pophood.formats.gguf import GGML_TYPES
from pophood.formats.quant import BLOCKS
from tests.formats import gguf_bytes as g
from tests.formats.gguf_bytes import Key, gguf, nbytes, placed
from tests.llama import open_llama
from tests.tiny import tiny_gguf

NUMBERS = {  # value type -> its extremes
    g.U8: (0, 255),
    g.I8: (-128, 127),
    g.U16: (0, 65_535),
    g.I16: (-32_768, 32_767),
    g.U32: (0, 2**32 - 1),
    g.I32: (-(2**31), 2**31 - 1),
    g.F32: (-0.0, 3.5, float("inf")),
    g.BOOL: (0, 1),
    g.U64: (0, 2**64 - 1),
    g.I64: (-(2**63), 2**63 - 1),
    g.F64: (0.1, -1e300),
}


def plain(value: Any) -> Any:
    """Convert arrays to lists for comparison."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, list) else value


def agrees_with_ggml(path: Path, decode_at_most: int = 1 << 20) -> None:
    """Check that we read the same keys, types, shapes, bytes and decoded values as gguf.GGUFReader."""
    library = pytest.importorskip("gguf", reason="needs Python package: gguf")
    reader = library.GGUFReader(path)
    with open_gguf(path) as file:
        theirs = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        assert list(file.metadata) == list(theirs)
        for name, field in theirs.items():
            assert repr(plain(file.metadata[name])) == repr(field.contents()), name
        assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
        assert file.version == int(reader.fields["GGUF.version"].contents())
        for tensor in reader.tensors:
            ours = file.tensors[tensor.name]
            assert ours.type == tensor.tensor_type.name
            assert ours.shape == tuple(int(n) for n in reversed(tensor.shape))
            assert ours.data.tobytes() == tensor.data.tobytes()
            if ours.size > decode_at_most:
                continue
            with np.errstate(all="ignore"):
                expected = library.quants.dequantize(tensor.data, tensor.tensor_type).reshape(ours.shape)
            assert ours.decode().tobytes() == expected.tobytes()
    del reader


def test_every_value_type_alone_and_in_arrays(tmp_path: Path) -> None:
    keys = [Key(f"s{kind}.{i}", kind, v) for kind, values in NUMBERS.items() for i, v in enumerate(values)]
    keys += [Key(f"a{kind}", g.ARRAY, (kind, values * 5)) for kind, values in NUMBERS.items()]
    keys += [Key("text", g.STRING, "naïve 😀\n"), Key("none", g.STRING, "")]
    keys += [Key("texts", g.ARRAY, (g.STRING, ["a", "", "é" * 200, "\x00\x01"]))]
    path = tmp_path / "types.gguf"
    path.write_bytes(gguf(keys).data)
    agrees_with_ggml(path)
    with open_gguf(path) as file:
        assert file.metadata["s7.1"] is True and file.metadata["s10.1"] == 2**64 - 1
        assert file.metadata["s6.1"] == 3.5 and type(file.metadata["s0.1"]) is int
        array = file.metadata["a5"]
        assert isinstance(array, np.ndarray) and array.dtype == np.int32 and not array.flags.writeable


def test_nested_and_empty_arrays(tmp_path: Path) -> None:
    nested = Key("grid", g.ARRAY, (g.ARRAY, [(g.U8, [1, 2]), (g.STRING, ["x"]), (g.ARRAY, [(g.F32, [0.5])])]))
    empty = [Key("no numbers", g.ARRAY, (g.F32, [])), Key("no texts", g.ARRAY, (g.STRING, []))]
    path = tmp_path / "nested.gguf"
    path.write_bytes(gguf([nested, *empty]).data)
    with open_gguf(path) as file:
        assert plain(file.metadata["grid"]) == [[1, 2], ["x"], [[0.5]]]
        assert plain(file.metadata["no numbers"]) == [] == file.metadata["no texts"]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_every_tensor_type(tmp_path: Path, version: int, alignment: int | None) -> None:
    rng = np.random.default_rng(0)
    tensors: list[tuple[str, str, tuple[int, ...], bytes]] = [("scalar", "F32", (), struct.pack("<f", 7))]
    for kind, layout in BLOCKS.items():
        shape = (2, 3, layout.elements * 2)
        tensors.append((f"w.{kind}", kind, shape, rng.bytes(nbytes(kind, shape))))
    infos, data = placed(tensors, alignment or 32)
    keys = [Key("general.alignment", g.U32, alignment)] if alignment else []
    path = tmp_path / "tensors.gguf"
    path.write_bytes(gguf(keys, infos, data, version=version, alignment=alignment or 32).data)
    agrees_with_ggml(path)
    with open_gguf(path) as file:
        assert file.tensors["scalar"].decode().shape == ()
        assert file.tensors["w.F16"].values().dtype == np.float16
        assert file.tensors["w.BF16"].values().dtype == np.uint16
        assert file.tensors["w.Q4_K"].values().dtype == np.float32
        assert not file.tensors["w.F32"].values().flags.writeable


def test_a_file_by_ggmls_own_writer(tmp_path: Path) -> None:
    library = pytest.importorskip("gguf", reason="needs Python package: gguf")
    path = tmp_path / "written.gguf"
    writer = library.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_token_list([f"token {i}" for i in range(1000)])
    writer.add_token_types([1] * 1000)
    rng = np.random.default_rng(1)
    for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        code = library.GGMLQuantizationType[kind]
        values = rng.standard_normal((4, 64)).astype(np.float32)
        writer.add_tensor(f"w.{kind}", library.quants.quantize(values, code), raw_dtype=code)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    agrees_with_ggml(path)


def test_the_real_file(smollm2: Path) -> None:
    agrees_with_ggml(smollm2, decode_at_most=120_000)


def test_no_tensors_and_no_padding(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(gguf([Key("a", g.U8, 1)]).data)
    with open_gguf(path) as file:
        assert file.metadata == {"a": 1} and file.tensors == {}


def test_tensors_in_any_order_and_without_the_last_padding(tmp_path: Path) -> None:
    infos, data = placed([("a", "F32", (3,), bytes(12)), ("b", "F32", (5,), bytes(range(20)))])
    path = tmp_path / "order.gguf"
    path.write_bytes(gguf([], infos[::-1], data[: 32 + 20]).data)
    with open_gguf(path) as file:
        assert list(file.tensors) == ["b", "a"] and file.tensors["b"].data.tobytes() == bytes(range(20))


def test_values_outlive_close(tmp_path: Path) -> None:
    infos, data = placed([("a", "F32", (2,), struct.pack("<2f", 1, 2))])
    path = tmp_path / "close.gguf"
    path.write_bytes(gguf([], infos, data).data)
    file = open_gguf(path)
    values = file.tensors["a"].values()
    file.close()
    file.close()
    gc.collect()
    assert file.tensors == {} and values.tolist() == [1, 2]


def test_the_types_are_ggmls() -> None:
    library = pytest.importorskip("gguf", reason="needs Python package: gguf")
    for kind in library.GGMLQuantizationType:
        assert GGML_TYPES[kind.value] == kind.name
    for name, layout in BLOCKS.items():
        assert library.GGML_QUANT_SIZES[library.GGMLQuantizationType[name]] == (layout.elements, layout.bytes)


# String arrays: the quick way and the slow way agree ---------------------------------------------------


def read_slowly(data: bytes, count: int) -> tuple[list[str], int]:
    result, position = [], 0
    for _ in range(count):
        length = int.from_bytes(data[position : position + 8], "little")
        result.append(data[position + 8 : position + 8 + length].decode())
        position += 8 + length
    return result, position


def one_of(data: bytes, calls: list[int] | None = None) -> Any:
    def one(index: int, position: int) -> tuple[str, int]:
        if calls is not None:
            calls.append(index)
        length = int.from_bytes(data[position : position + 8], "little")
        try:
            return data[position + 8 : position + 8 + length].decode(), position + 8 + length
        except UnicodeDecodeError:
            raise BadFile(f"string {index}") from None

    return one


TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="\x00\x01\x07a", max_size=20),
    st.integers(0, 400).map(lambda n: "é" * n),
)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(TEXTS, max_size=40),
    tail=st.binary(max_size=20),
    window=st.sampled_from([32, 100, 1 << 16]),
)
def test_string_arrays(texts: list[str], tail: bytes, window: int) -> None:
    data = b"".join(len(t.encode()).to_bytes(8, "little") + t.encode() for t in texts) + tail
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "WINDOW", window)
        stored = np.frombuffer(data, np.uint8)
        assert strings.read_strings(stored, 0, len(texts), one_of(data)) == read_slowly(data, len(texts))


def test_an_ordinary_vocabulary_goes_the_quick_way() -> None:
    texts = [f"Ġtoken{i}" for i in range(50_000)]
    data = b"".join(len(t.encode()).to_bytes(8, "little") + t.encode() for t in texts)
    calls: list[int] = []
    read, end = strings.read_strings(np.frombuffer(data, np.uint8), 0, len(texts), one_of(data, calls))
    assert read == texts and end == len(data)
    assert len(calls) < 100, "one string a window at most should need the slow way"


@pytest.mark.parametrize("bad", [0, 1, 5_000, 20_001])
def test_the_string_that_is_not_utf8_is_named(bad: int) -> None:
    pieces = [f"token {i}".encode() for i in range(20_002)]
    pieces[bad] = b"caf\xe9"
    data = b"".join(len(p).to_bytes(8, "little") + p for p in pieces)
    with pytest.raises(BadFile, match=f"string {bad}$"):
        strings.read_strings(np.frombuffer(data, np.uint8), 0, len(pieces), one_of(data))


@pytest.mark.parametrize(
    "pattern", [["", "a"], ["\x00"], ["a"] * 260 + [""], ["é" * 300, "b"], ["a", "b" * 500]]
)
def test_hostile_mixtures_of_strings_waste_few_windows(pattern: list[str]) -> None:
    texts = (pattern * (40_000 // len(pattern) + 1))[:40_000]
    data = b"".join(len(t.encode()).to_bytes(8, "little") + t.encode() for t in texts)
    windows = 0
    linked = strings._linked

    def counted(window: Any, count: int) -> Any:
        nonlocal windows
        windows += 1
        return linked(window, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "_linked", counted)
        assert strings.read_strings(np.frombuffer(data, np.uint8), 0, 40_000, one_of(data))[0] == texts
    assert windows <= 40_000 // 200 + 30 + len(data) // strings.WINDOW


# Any file that the format allows -----------------------------------------------------------------------

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: len(name.encode()) <= 60)
SCALARS = st.sampled_from(sorted(NUMBERS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.sampled_from(NUMBERS[kind]))
)
VALUES = st.one_of(
    SCALARS,
    st.text(max_size=30).map(lambda text: (g.STRING, text)),
    st.lists(st.text(max_size=9), min_size=1, max_size=9).map(lambda texts: (g.ARRAY, (g.STRING, texts))),
    st.sampled_from(sorted(NUMBERS)).flatmap(
        lambda kind: st.lists(st.sampled_from(NUMBERS[kind]), min_size=1, max_size=9).map(
            lambda items: (g.ARRAY, (kind, items))
        )
    ),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metadata=st.dictionaries(
        NAMES.filter(lambda n: not n.startswith(("general.", "split.", "GGUF."))), VALUES
    ),
    tensors=st.dictionaries(
        NAMES, st.tuples(st.sampled_from(sorted(BLOCKS)), st.lists(st.integers(1, 3), max_size=3)), max_size=5
    ),
    version=st.sampled_from([2, 3]),
    seed=st.integers(0, 99),
)
def test_any_good_file(
    tmp_path: Path,
    metadata: dict[str, tuple[int, Any]],
    tensors: dict[str, tuple[str, list[int]]],
    version: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    described = []
    for name, (kind, outer) in tensors.items():
        shape = [*outer, BLOCKS[kind].elements]
        described.append((name, kind, shape, rng.bytes(nbytes(kind, shape))))
    infos, data = placed(described)
    path = tmp_path / "any.gguf"
    path.unlink(missing_ok=True)
    keys = [Key(name, kind, value) for name, (kind, value) in metadata.items()]
    path.write_bytes(gguf(keys, infos, data, version=version).data)
    agrees_with_ggml(path)


@pytest.mark.parametrize("zeros", [1, 31, 32, 5_000, 3 << 20])
def test_zeros_after_the_last_tensor_are_padding(zeros: int, tmp_path: Path) -> None:
    """llama.cpp and ggml's reader ignore these bytes; programs that fetch in blocks fill the last one."""
    infos, data = placed([("w", "F32", (8,), bytes(range(32)))])
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([], infos, data).data + bytes(zeros))
    with open_gguf(path) as file:
        assert file.tensors["w"].data.tobytes() == bytes(range(32))
    agrees_with_ggml(path)


def test_llama_cpp_takes_what_is_harmless_too(tmp_path: Path) -> None:
    """Both programs read the file: zeros at the end, another vocab_size, a scale of 1."""
    keys = {"llama.vocab_size": 9_999, "llama.logit_scale": 1.0, "llama.attention.scale": 0.0}
    path = tiny_gguf(tmp_path / "m.gguf", "llama", keys=keys, vocab_size=400)
    with path.open("ab") as end:
        end.write(bytes(4_096))
    ids = [3, 20, 100, 7]
    model = open_llama(path, logits_all=True)
    model.eval(ids)
    theirs = np.array(model.scores[: len(ids)])
    model.close()
    ours = pophood.load(path, precision="f32").logits(ids)
    assert np.abs(ours - theirs).max() < 5e-3 * np.abs(theirs).max()
