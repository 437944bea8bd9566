"""The model at a path: identified by its bytes, through links, with all shards or parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadFile, Unsupported
from pophood.model.bundle import open_bundle
from tests.hub.test_choice import put
from tests.needs import linux
from tests.tiny import tiny_folder, tiny_gguf


@pytest.mark.parametrize("name", ["sha256-1d96b2a6", "model.bin", "x.pt", "x.gguf.bak", "no-suffix"])
def test_gguf_bytes_are_a_model_under_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blobs").mkdir()
    path = tmp_path / "blobs" / name
    path.write_bytes(b"GGUF\x03\x00\x00\x00")
    found = pophood_hub.locate(f"blobs/{name}")
    assert (found.path, found.kind) == (path, "gguf")
    assert pophood_hub.locate("./blobs").path == path
    monkeypatch.setenv("POPHOOD_MODELS", str(tmp_path / "blobs"))
    assert [model.path for model in pophood_hub.list_models()] == [path]
    assert pophood_hub.locate(name).path == path


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("x.gguf.part01", b"anything", BadFile, "by its name a piece of 'x.gguf': join all pieces"),
        ("x.gguf", b"\x80\x04.", Unsupported, "a Python pickle: opening one can run any program"),
        (
            "x.gguf",
            b"<!DOCTYPE html>",
            Unsupported,
            "a web page, probably an error that was saved as a model",
        ),
        ("x.safetensors", b"version https://git-lfs.github.com/spec/v1", Unsupported, "a Git LFS pointer"),
        ("notes.txt", b"hello, reader", BadFile, "begins with b'hello, r': neither GGUF nor safetensors"),
        ("empty", b"", BadFile, "is empty: neither GGUF nor safetensors"),
    ],
)
def test_what_is_no_model_is_judged_by_its_bytes(
    name: str,
    content: bytes,
    error: type[Exception],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        pophood_hub.locate(f"./{name}")


def test_a_folder_whose_weights_are_a_link_to_another_disk(tmp_path: Path) -> None:
    linux()
    folder = tiny_folder(tmp_path / "model", "llama")
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder / name).rename(disk / name)
        (folder / name).symlink_to(disk / name)
    (tmp_path / "short-cut").symlink_to(folder)
    for place in (folder, tmp_path / "short-cut", folder / "model.safetensors"):
        assert open_bundle(pophood_hub.locate(str(place)).path).config.architecture == "llama"
    (disk / "model.safetensors").unlink()
    with pytest.raises(
        BadFile, match=r"'model\.safetensors' is a link to a file that is missing: mount its disk"
    ):
        pophood_hub.locate(str(folder))


def test_shards_are_one_model_however_they_are_named(tmp_path: Path, home: Path) -> None:
    folder = tiny_folder(home / "models" / "owner" / "sharded", "llama", shards=4)
    whole = open_bundle(tiny_folder(tmp_path / "whole", "llama"))
    index = folder / "model.safetensors.index.json"
    for with_index in (True, False):
        if not with_index:
            index.unlink()
        for name in (str(folder), f"{folder}/model-00001-of-00004.safetensors", "owner/sharded"):
            bundle = open_bundle(pophood_hub.locate(name).path)
            assert all((bundle.weights[key] == whole.weights[key]).all() for key in whole.weights)
        assert [(model.name, model.path) for model in pophood_hub.list_models()] == [
            ("owner/sharded", folder)
        ]
    assert open_bundle(folder / "model-00003-of-00004.safetensors").config == whole.config
    (folder / "model-00002-of-00004.safetensors").unlink()
    assert pophood_hub.list_models() == []
    with pytest.raises(
        BadFile, match=r"'model-00002-of-00004.safetensors' is missing: fetch the model again"
    ):
        open_bundle(folder)


def test_a_split_gguf_in_a_model_folder_is_one_model(home: Path) -> None:
    (home / "models").mkdir(parents=True)
    tiny_gguf(home / "models" / "m.gguf", "llama", part_tensors=8)
    parts = sorted((home / "models").glob("m-*.gguf"))
    put(home / "models" / "owner" / "other", {"one.gguf": b"GGUF"})
    (listed,) = [model for model in pophood_hub.list_models() if model.path in parts]
    assert (listed.path, listed.size) == (parts[0], sum(part.stat().st_size for part in parts))
    assert pophood_hub.locate(listed.name).path == parts[0]
    assert pophood_hub.locate(str(parts[1])).path == parts[0]
    pophood_hub.remove(listed.name)
    assert not list((home / "models").glob("m-*.gguf"))
    assert len(pophood_hub.list_models()) == 1
