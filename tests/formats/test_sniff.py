"""Files are identified by their bytes; pickles are refused without being opened."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pophood.errors import BadFile, BadInput, NotFound, Unsupported
from pophood.formats import confined, find_weights, identify, open_gguf
from pophood.formats.parts import Part, one_of_each, part_of
from pophood.formats.sniff import weights_at
from pophood.system import map_file
from tests.formats.gguf_bytes import gguf, placed
from tests.formats.safetensors_bytes import floats
from tests.needs import linux

REASON = "opening one can run any program that its author put inside, so pophood never opens it"


class Canary:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "the canary ran"


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "m.pt", "m.pth", "m.pt2", "m.ckpt", "m.pkl", "m.joblib"]
)
@pytest.mark.parametrize("form", [0, 2, 3, 4, 5, "zip", "npy"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, canary: Path, name: str, form: int | str) -> None:
    path = tmp_path / name
    if isinstance(form, int):
        path.write_bytes(pickle.dumps(Canary(canary), protocol=form))
    elif form == "zip":
        path.write_bytes(zipped("archive/data.pkl", pickle.dumps(Canary(canary))))
    else:
        with path.open("wb") as file:
            np.save(file, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    for look in (lambda: identify(path), lambda: find_weights(tmp_path)):
        with pytest.raises(Unsupported) as refusal:
            look()
        text = str(refusal.value)
        assert REASON in text and ".safetensors or .gguf" in text and "save_pretrained" in text
        assert name in text and "\n" not in text
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "the canary can sing"


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "model"])
def test_a_pickle_under_a_good_name_is_still_a_pickle(tmp_path: Path, canary: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(Unsupported, match="a Python pickle: opening one"):
        identify(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.npy", b"\x93NUMPY\x01\x00", "a NumPy array file, which may hold pickled objects"),
        ("w.npz", b"PK\x03\x04....", "a zip archive as torch.save and numpy.savez write"),
        ("tf_model.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("w.bin", b"lmgg\x01\x00\x00\x00", "a ggml file from before GGUF"),
        ("w.bin", b"tjgg\x03\x00\x00\x00", "a ggml file from before GGUF"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("model.safetensors", b"<!DOCTYPE html><html>", "a web page"),
        ("model.safetensors", b"<html><body>", "a web page"),
        ("model.gguf.gz", b"\x1f\x8b\x08", "a gzip archive"),
        ("w.onnx", b"\x08\x07", "by its name .onnx another program's format"),
        ("flax_model.msgpack", b"\x81", "by its name .msgpack another program's format"),
        ("pytorch_model.bin", b"anything at all", "by its name .bin a pickle"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Unsupported, match=words):
        identify(path)


def test_good_files_are_known_whatever_their_name(tmp_path: Path) -> None:
    for name, content, kind in [
        ("model.gguf", gguf().data, "gguf"),
        ("weights.bin", gguf().data, "gguf"),
        ("sha256-0123", floats({"w": [1.0]}), "safetensors"),
        ("model.safetensors", b"short", "safetensors"),
        ("model.safetensors.index.json", b'{"weight_map": {}}', "index"),
        ("model.gguf", b"GG", "gguf"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert identify(tmp_path / name) == kind


def test_what_is_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        identify(tmp_path / "nothing.gguf")
    with pytest.raises(BadFile, match="cannot be read as a file"):
        identify(tmp_path)
    (tmp_path / "notes").write_text("hello")
    with pytest.raises(BadFile, match=r"begins with b'hello': neither GGUF nor safetensors"):
        identify(tmp_path / "notes")


def test_find_weights_prefers_the_plain_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(Unsupported, match=r"pytorch_model\.bin"):
        find_weights(tmp_path)
    (tmp_path / "q.gguf").touch()
    assert find_weights(tmp_path).name == "q.gguf"
    (tmp_path / "adapter_model.safetensors").touch()
    assert find_weights(tmp_path).name == "q.gguf"
    (tmp_path / "other.safetensors").touch()
    assert find_weights(tmp_path).name == "other.safetensors"
    (tmp_path / "model.safetensors.index.json").touch()
    assert find_weights(tmp_path).name == "model.safetensors.index.json"
    (tmp_path / "model.safetensors").touch()
    assert find_weights(tmp_path).name == "model.safetensors"


def test_find_weights_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such folder"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(BadFile, match=r"holds no \.safetensors and no \.gguf file"):
        find_weights(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(
        BadInput,
        match=r"holds 2 models, wanted one: name one of these files, such as .*/a.gguf: a.gguf, b.gguf",
    ):
        find_weights(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "C:x",
        "x\x00",
        "x\n",
        "\x1b[2J",
        "a*",
        "... ",
        "a:b",
    ],
)
def test_confined_takes_plain_names_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadFile, match="wanted a plain file name inside the folder") as refusal:
        confined(tmp_path, name)
    assert str(refusal.value).isprintable()


def test_confined_says_when_a_file_is_missing_or_out_of_reach(tmp_path: Path) -> None:
    linux()
    with pytest.raises(BadFile, match="the file 'x' is missing"):
        confined(tmp_path, "x")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadFile, match="the file 'loop' cannot be reached"):
        confined(tmp_path, "loop")
    with pytest.raises(BadFile, match=r"the file 'aaa.* cannot be reached"):
        confined(tmp_path, "a" * 5000)
    with pytest.raises(BadFile, match=r"the file '\\ud800' cannot be reached"):
        confined(tmp_path, "\ud800")
    (tmp_path / "dangling").symlink_to("gone")
    with pytest.raises(BadFile, match="'dangling' is a link to a file that is missing: mount its disk"):
        confined(tmp_path, "dangling")


# Bytes decide, not names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["sha256-1d96b2a6", "model.bin", "weights.pt", "MODEL.GGUF", "m.gguf.bak", "m.onnx"]
)
def test_gguf_under_any_name_is_a_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gguf().data)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_bytes(b"GGUF too, and not weights")
    (tmp_path / "optimizer.bin").write_bytes(pickle.dumps([1]))
    assert identify(tmp_path / name) == "gguf"
    assert weights_at(tmp_path / name) == find_weights(tmp_path) == tmp_path / name


@pytest.mark.parametrize("name", ["model.bin", "weights", "model.pth", "sha256-0123"])
def test_safetensors_under_any_name_are_a_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(floats({"w": [1.0]}))
    (tmp_path / "config.json").write_text("{}")
    assert find_weights(tmp_path) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.gguf.part01", "by its name a piece of 'x.gguf': join all pieces in order"),
        ("x.gguf.part2of3", "by its name a piece of 'x.gguf'"),
        ("x.Q6_K.gguf-split-b", "by its name a piece of 'x.Q6_K.gguf'"),
        ("x.safetensors.002", "by its name a piece of 'x.safetensors'"),
        ("x.gguf.ab", "by its name a piece of 'x.gguf'"),
        ("x.gguf.part", "by its name an unfinished download"),
        ("x.safetensors.incomplete", "by its name an unfinished download"),
        ("x.gguf.crdownload", "by its name an unfinished download"),
    ],
)
def test_a_piece_of_a_file_is_called_a_piece(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"anything else")
    with pytest.raises(BadFile, match="begins with b'anything': neither GGUF nor safetensors; " + words):
        identify(tmp_path / name)
    infos, data = placed([("w", "F32", (64,), bytes(256))])
    (tmp_path / name).write_bytes(gguf([], infos, data).data[:-100])
    with pytest.raises(BadFile, match="the file is truncated or forged: " + words):
        open_gguf(tmp_path / name)
    with pytest.raises(BadFile, match=r"holds no \.safetensors and no \.gguf file"):
        find_weights(tmp_path)


def test_all_pieces_joined_are_a_model(tmp_path: Path) -> None:
    """The advice works, and a complete file under a piece's name is opened."""
    infos, data = placed([("w", "F32", (64,), bytes(range(256)))])
    whole = gguf([], infos, data).data
    for i in range(4):
        (tmp_path / f"x.gguf.part0{i}").write_bytes(whole[i * 100 : (i + 1) * 100] if i < 3 else whole[300:])
    joined = tmp_path / "x.gguf"
    joined.write_bytes(b"".join((tmp_path / f"x.gguf.part0{i}").read_bytes() for i in range(4)))
    (tmp_path / "y.gguf.part00").write_bytes(whole)
    for path in (joined, tmp_path / "y.gguf.part00"):
        with open_gguf(path) as file:
            assert file.tensors["w"].data.tobytes() == bytes(range(256))


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Opening one would block forever."""
    linux()
    os.mkfifo(tmp_path / "model.safetensors")
    for look in (identify, open_gguf, weights_at, map_file):
        with pytest.raises(BadFile, match=r"is a pipe, a socket or a device; wanted a (regular )?file"):
            look(tmp_path / "model.safetensors")


def test_part_names() -> None:
    part = part_of("sub/q4-00002-of-00003.gguf")
    assert part == Part("sub/q4", 2, 3, ".gguf")
    assert part.names == [f"sub/q4-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert (part.first, part.name) == (part.names[0], part.names[1])
    for name in (
        "q4.gguf",
        "q4-00000-of-00002.gguf",
        "q4-00003-of-00002.gguf",
        "q4-1-of-2.gguf",
        "-00001-of-00001.gguf",
    ):
        assert part_of(name) is None
    assert part_of("x-00001-of-99999.gguf") is None
    assert one_of_each(
        ["b-00002-of-00002.gguf", "a.gguf", "b-00001-of-00002.gguf", "b-00001-of-00003.gguf"]
    ) == [
        "b-00001-of-00002.gguf",
        "a.gguf",
        "b-00001-of-00003.gguf",
    ]
