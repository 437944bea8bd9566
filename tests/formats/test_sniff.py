"""What a file is, is read from its bytes; pickles are refused without being opened."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pophood.errors import BadFile, BadInput, NotHere, Unsupported
from pophood.formats import confined, find_weights, identify
from tests.formats.gguf_bytes import gguf
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
    with pytest.raises(NotHere, match="there is no such file"):
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
    with pytest.raises(NotHere, match="there is no such folder"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(BadFile, match=r"holds no \.safetensors and no \.gguf file"):
        find_weights(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(BadInput, match=r"holds 2 models \('a.gguf, b.gguf'\); name one"):
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
    with pytest.raises(BadFile, match="the file 'dangling' is missing"):
        confined(tmp_path, "dangling")
