"""Split GGUF files: read as by llama.cpp, and every contradiction among parts is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadFile, NotFound, PophoodError
from pophood.formats import GGUFFile, find_weights, open_gguf
from pophood.formats.gguf import open_gguf_file
from pophood.formats.sniff import weights_at
from pophood.model.bundle import open_bundle
from tests.formats import gguf_bytes as g
from tests.formats.gguf_bytes import Key, gguf, placed
from tests.llama import open_llama
from tests.needs import linux
from tests.tiny import tiny_gguf

SMALL: dict[str, Any] = {"vocab_size": 400}


def split_model(folder: Path, family: str = "llama", part_tensors: int = 7, **options: Any) -> list[Path]:
    """Write the parts of a model with ggml's own writer."""
    folder.mkdir(exist_ok=True)
    tiny_gguf(folder / "m.gguf", family, part_tensors=part_tensors, **SMALL, **options)
    return sorted(folder.glob("m-*.gguf"))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
def test_parts_are_the_whole_model(family: str, tmp_path: Path) -> None:
    whole = open_bundle(tiny_gguf(tmp_path / "m.gguf", family, **SMALL))
    parts = split_model(tmp_path / "parts", family)
    assert len(parts) > 2
    for place in (parts[0], parts[1], parts[-1], parts[0].parent):
        split = open_bundle(place)
        assert (split.name, split.config, split.precisions) == ("m", whole.config, whole.precisions)
        assert list(split.weights) == list(whole.weights)
        for name in whole.weights:
            assert np.array_equal(split.weights[name], whole.weights[name])
        text = "The capital of Spain is"
        assert split.tokenizer.encode(text) == whole.tokenizer.encode(text)
    with open_gguf(parts[1]) as file, open_gguf(tmp_path / "m.gguf") as one:
        assert file.path == parts[0]
        assert file.metadata.keys() == one.metadata.keys()


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_llama_cpp_computes_the_same_from_the_same_parts(dtype: str, tmp_path: Path) -> None:
    parts = split_model(tmp_path / "parts", dtype=dtype)
    ids = [3, 20, 100, 7, 55]
    theirs = open_llama(parts[0], logits_all=True)
    theirs.eval(ids)
    wanted = np.array(theirs.scores[: len(ids)])
    theirs.close()
    ours = pophood.load(parts[-1], precision="f32").logits(ids)
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() < 5e-3 * np.abs(wanted).max()


def test_links_into_a_cache_keep_their_names(tmp_path: Path) -> None:
    """llama.cpp #21016: the names of the parts are those of the links, not of the blobs that they lead to."""
    linux()
    parts = split_model(tmp_path / "parts")
    snapshot = tmp_path / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for i, part in enumerate(parts):
        blob = part.rename(tmp_path / "blobs" / f"{9 - i}a7f")
        (snapshot / part.name).symlink_to(blob)
    assert open_gguf(snapshot / parts[2].name).path == snapshot / parts[0].name
    assert open_bundle(snapshot).name == "m"


# Contradictions -------------------------------------------------------------------------------------------


def write_parts(folder: Path, *parts: dict[str, Any]) -> Path:
    """Write two good parts of one tensor each, changed as `parts` says; return the first part's path."""
    usual: list[dict[str, Any]] = [
        {"name": f"m-{i + 1:05}-of-{len(parts):05}.gguf", "no": i, "count": len(parts), "all": len(parts)}
        for i in range(len(parts))
    ]
    for i, (given, part) in enumerate(zip(parts, usual, strict=True)):
        said = part | given
        keys = [Key("general.architecture", g.STRING, "llama")] if i == 0 else []
        keys += said.get("keys", [])
        for key, field, kind in (
            ("split.no", "no", g.U16),
            ("split.count", "count", g.U16),
            ("split.tensors.count", "all", g.I32),
        ):
            if said[field] is not None:
                keys.append(Key(key, kind, said[field]))
        infos, data = placed([(said.get("tensor", f"w{i}"), "F32", (8,), bytes(range(i, i + 32)))])
        (folder / said["name"]).write_bytes(said.get("bytes") or gguf(keys, infos, data).data)
    return folder / f"m-00001-of-{len(parts):05}.gguf"


def test_good_parts_by_hand(tmp_path: Path) -> None:
    path = write_parts(tmp_path, {}, {}, {})
    with open_gguf(path) as file:
        assert file.metadata == {"general.architecture": "llama"}
        assert {name: tensor.data[0] for name, tensor in file.tensors.items()} == {"w0": 0, "w1": 1, "w2": 2}
    assert find_weights(tmp_path) == weights_at(tmp_path / "m-00003-of-00003.gguf") == path
    with open_gguf_file(path) as part:
        assert list(part.tensors) == ["w0"]


FLAG = Key("x.flag", g.BOOL, True)
NESTED = Key("x.grid", g.ARRAY, (g.ARRAY, [(g.U8, [1, 2]), (g.STRING, ["x"])]))
CONTRADICTIONS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "another number of parts": (
        [{}, {"count": 3}],
        r"m-00002-of-00002.gguf: is part 2 of 2 by its name, but 2 of 3",
    ),
    "another number": (
        [{}, {"no": 0}],
        r"m-00002-of-00002.gguf: is part 2 of 2 by its name, but 1 of 2 by its",
    ),
    "swapped": (
        [{"no": 1}, {"no": 0}],
        r"m-00001-of-00002.gguf: is part 1 of 2 by its name, but 2 of 2 by its",
    ),
    "no number": (
        [{}, {"no": None}],
        r"00002-of-00002.gguf: the key split.no is missing, wanted a whole number",
    ),
    "no count in the second": ([{}, {"count": None}], r"00002-of-00002.gguf: the key split.count is missing"),
    "beyond the count": (
        [{}, {"no": 2}],
        r"00002-of-00002.gguf: is part 3 of 2 by its keys split.no, split.count",
    ),
    "too few tensors": (
        [{"all": 3}, {"all": 3}],
        r"its 2 parts hold 2 tensors, wanted 3 \(split.tensors.count\)",
    ),
    "too many tensors": ([{"all": 1}, {"all": 1}], "its 2 parts hold 2 tensors, wanted 1"),
    "no number of tensors": ([{"all": None}, {"all": None}], "the key split.tensors.count is missing"),
    "differing numbers of tensors": (
        [{}, {"all": 3}],
        "the key 'split.tensors.count' differs from that in m-00001",
    ),
    "one tensor twice": ([{}, {"tensor": "w0"}], "m-00002-of-00002.gguf: the tensor 'w0' is also in m-00001"),
    "another architecture": (
        [{}, {"keys": [Key("general.architecture", g.STRING, "qwen2")]}],
        "m-00002-of-00002.gguf: the key 'general.architecture' differs from that in m-00001.*different",
    ),
    "a key that the first lacks": ([{}, {"keys": [FLAG]}], "the key 'x.flag' differs from that in"),
    "a nested key that the first lacks": ([{}, {"keys": [NESTED]}], "the key 'x.grid' differs from that in"),
    "a part that is no GGUF": ([{}, {"bytes": b"PK\x03\x04" + bytes(60)}], "begins with b'PK"),
    "a part that was cut": (
        [{}, {"bytes": b"GGUF\x03\x00\x00\x00"}],
        r"00002-of-00002.gguf: the number of tensors needs",
    ),
    "a negative number": (
        [{"all": -1}, {"all": -1}],
        "the key split.tensors.count is '-1', wanted a whole number",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_parts_that_contradict_each_other(kind: str, tmp_path: Path) -> None:
    parts, words = CONTRADICTIONS[kind]
    path = write_parts(tmp_path, *parts)
    with pytest.raises(PophoodError, match=words) as refusal:
        open_gguf(path)
    assert type(refusal.value) is BadFile and "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["keys", "nested keys"])
def test_keys_that_the_first_part_has_too(kind: str, tmp_path: Path) -> None:
    keys = {"keys": [FLAG] if kind == "keys" else [NESTED, Key("x.list", g.ARRAY, (g.U8, [1, 2]))]}
    with open_gguf(write_parts(tmp_path, keys, keys)) as file:
        assert len(file.tensors) == 2


def test_a_part_is_missing(tmp_path: Path) -> None:
    path = write_parts(tmp_path, {}, {}, {})
    second, third = (tmp_path / f"m-0000{i}-of-00003.gguf" for i in (2, 3))
    second.unlink()
    for named in (path, third, tmp_path):
        with pytest.raises(
            NotFound, match=r"part 2 of 3, 'm-00002-of-00003.gguf', is missing: put all parts in"
        ):
            open_gguf(weights_at(named))
    path.unlink()
    with pytest.raises(NotFound, match=r"part 1 of 3, 'm-00001-of-00003.gguf', is missing"):
        open_gguf(weights_at(third))


@pytest.mark.parametrize("name", ["m.gguf", "m-1-of-2.gguf", "m-00001-of-00002.bin", "sha256-0123"])
def test_a_part_under_another_name(name: str, tmp_path: Path) -> None:
    path = write_parts(tmp_path, {}, {}).rename(tmp_path / name)
    with pytest.raises(
        BadFile, match=r"which are found by their names: rename it to NAME-00001-of-00002.gguf, and"
    ):
        open_gguf(path)


def test_a_part_under_another_models_number(tmp_path: Path) -> None:
    first = write_parts(tmp_path, {}, {})
    shutil.copy(first, tmp_path / "m-00001-of-00003.gguf")
    with pytest.raises(BadFile, match="is part 1 of 3 by its name, but 1 of 2 by its keys"):
        open_gguf(tmp_path / "m-00001-of-00003.gguf")


def test_far_too_many_parts(tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-60000.gguf").write_bytes(
        gguf([Key("split.no", g.U16, 0), Key("split.count", g.U16, 60_000)]).data
    )
    with pytest.raises(BadFile, match="claims 60,000 parts, wanted at most 512"):
        open_gguf(tmp_path / "m-00001-of-60000.gguf")


@pytest.mark.parametrize(
    "value", [(g.STRING, "2"), (g.BOOL, True), (g.F32, 2.0), (g.I32, -1), (g.ARRAY, (g.U8, [2]))]
)
def test_a_count_that_is_no_count(value: tuple[int, Any], tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00002.gguf"
    path.write_bytes(gguf([Key("split.count", *value)]).data)
    with pytest.raises(BadFile, match=r"the key split.count is .*, wanted a whole number of at least 0"):
        open_gguf(path)


@pytest.mark.parametrize("count", [0, 1])
def test_one_part_is_a_whole_file(count: int, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", "llama", keys={"split.count": count, "split.no": 0}, **SMALL)
    assert open_bundle(path).name == "m"


def test_a_failure_unmaps_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    close = GGUFFile.close

    def noted(file: GGUFFile) -> None:
        closed.append(file.path.name)
        close(file)

    monkeypatch.setattr(GGUFFile, "close", noted)
    with pytest.raises(BadFile):
        open_gguf(write_parts(tmp_path, {}, {}, {"tensor": "w0"}))
    assert sorted(closed) == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
