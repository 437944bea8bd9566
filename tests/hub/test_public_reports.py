"""Folders and names from public bug reports against other programs; each test names its report."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import pophood
from pophood import hub as pophood_hub
from pophood.errors import BadFile, BadInput, NotFound, Unsupported
from pophood.hub.names import name_in
from pophood.model.bundle import Bundle, open_bundle
from tests.hub.fake_hub import FakeHub
from tests.needs import linux
from tests.tiny import tiny_config, tiny_folder, tiny_gguf
from tests.tiny_folder import hf_entries, reference, write_safetensors
from tests.tiny_values import Entry, Values


def opened(path: Path) -> Bundle:
    return open_bundle(pophood_hub.locate(str(path), offline=True).path)


def test_an_index_of_another_version(tmp_path: Path) -> None:
    """mlx-vlm PR 1827, CoSER #3: the shards are complete, and the index names others."""
    folder = tiny_folder(tmp_path / "m", "llama", shards=3)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("of-00003", "of-00030"))
    with pytest.raises(BadFile, match=r"index.json: names '.*of-00030.*', .*3 other shards .*delete it"):
        opened(folder)
    index.unlink()  # the advice
    assert opened(folder).config == tiny_config("llama")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_shard_that_never_came(number: int, tmp_path: Path) -> None:
    """sglang PR 32279: a missing shard left its weights as they were allocated."""
    folder = tiny_folder(tmp_path / "m", "llama", shards=3)
    (folder / f"model-0000{number}-of-00003.safetensors").unlink()
    with pytest.raises(
        BadFile, match=f"the file 'model-0000{number}-of-00003.safetensors' is missing: fetch"
    ):
        opened(folder)


def test_the_index_can_be_named_beside_a_stray_file(tmp_path: Path) -> None:
    """mlx-vlm #1329: a model.safetensors of another precision lies beside the shards."""
    folder = tiny_folder(tmp_path / "m", "llama", shards=2)
    shutil.copy(tiny_folder(tmp_path / "other", "qwen3") / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(BadFile, match="tensors and configuration disagree"):
        opened(folder)
    for name in ("model.safetensors.index.json", "model-00002-of-00002.safetensors"):
        assert opened(folder / name).name == "m"


@pytest.mark.parametrize("factor", [1, 2])
def test_a_tied_model_with_an_output_matrix(factor: int, tmp_path: Path) -> None:
    """mlx-lm PR 1298, vLLM PR 6758: equal matrices are one; others are both used, as transformers 5 does."""
    config = tiny_config("llama")
    folder = tiny_folder(tmp_path / "m", "llama")
    entries = hf_entries(config, Values(config))
    token = next(entry for entry in entries if "embed_tokens" in entry.name)
    output = Entry("lm_head.weight", token.shape, lambda: token.make() * np.float32(factor))
    write_safetensors(folder / "model.safetensors", [*entries, output])
    bundle = opened(folder)
    assert bundle.config.tied_output == (factor == 1)
    assert (["holds another output matrix" in remark for remark in bundle.remarks]) == [True] * (factor - 1)
    ids = [3, 20, 100, 7]
    import torch

    with torch.no_grad():
        theirs = reference(folder)(torch.tensor([ids])).logits[0].numpy()
    ours = pophood.load(folder, precision="f32", announce=str).logits(ids)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_an_output_matrix_that_is_missing(tmp_path: Path) -> None:
    """Qwen3-VL-Embedding #89, mlx #2309: config.json says untied, and no file has the matrix."""
    folder = tiny_folder(tmp_path / "m", "llama", keys={"tie_word_embeddings": False})
    words = "lacks 'lm_head.weight': .*if its output is the token matrix, set tie_word_embeddings to true"
    with pytest.raises(BadFile, match=words):
        opened(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))  # the advice
    assert opened(folder).config.tied_output


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"]
)
def test_git_lfs_pointers(name: str, tmp_path: Path) -> None:
    """llama-cpp-python #902 and many others: a repo that was cloned without git lfs."""
    folder = tiny_folder(tmp_path / "m", "llama")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(
        (BadFile, Unsupported), match=f"{name}.* a Git LFS pointer without the .*run git lfs pull"
    ):
        opened(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"]
)
def test_files_that_an_editor_saved_with_a_byte_order_mark(name: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "llama")
    text = (folder / name).read_text(encoding="utf-8") if (folder / name).exists() else "{}"
    (folder / name).write_text(text, encoding="utf-8-sig")
    assert opened(folder).remarks == ()


def test_offline_finds_what_the_cache_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub #4487: the offline switch was asked before the cache."""
    snapshot = tmp_path / "hf" / "hub" / "models--a--b" / "snapshots" / ("a" * 40)
    tiny_folder(snapshot, "llama")  # as without links: files, not links (hfhub #10, huggingface_hub PR 1067)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert opened(pophood_hub.locate("a/b").path).name == "a/b"


def test_a_cache_whose_blob_is_gone_is_no_model(tmp_path: Path) -> None:
    linux()
    snapshot = tmp_path / "hf" / "hub" / "models--a--b" / "snapshots" / ("a" * 40)
    tiny_folder(snapshot, "llama")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
    assert pophood_hub.list_models() == []
    with pytest.raises(NotFound, match="a/b: not on this machine"):
        pophood_hub.locate("a/b", offline=True)


@pytest.mark.parametrize("magic", [b"tjgg", b"fmgg", b"lmgg"])
def test_files_from_before_gguf(magic: bytes, tmp_path: Path) -> None:
    """llama.cpp #3492, llama-cpp-python #653: "invalid magic", "is this really a GGML file?"."""
    path = tmp_path / "llama-2-7b-chat.ggmlv3.q8_0.bin"
    path.write_bytes(magic + b"\x03\x00\x00\x00" + bytes(50))
    with pytest.raises(Unsupported, match="a ggml file from before GGUF; pophood reads safetensors and GGUF"):
        pophood_hub.locate(str(path))


@pytest.mark.parametrize("beside", ["mmproj-m-f16.gguf", "imatrix.gguf", "._m.gguf", "m.gguf.part"])
def test_gguf_files_that_lie_beside_a_model(beside: str, hub: FakeHub, tmp_path: Path) -> None:
    """Repos of models that see ship their projector, quantisers their counts, macOS its "._" files."""
    folder = tmp_path / "folder"
    folder.mkdir()
    tiny_gguf(folder / "m.gguf", "llama")
    (folder / beside).write_bytes(b"GGUF" + bytes(60))
    assert opened(folder).name == "m"
    if not beside.startswith("."):
        hub.add("owner/m", {"m.gguf": b"GGUF" + bytes(10), beside: b"GGUF"})
        assert pophood_hub.pull("owner/m", announce=str).path.name == "m.gguf"


@pytest.mark.parametrize(
    "beside", ["optimizer.safetensors", "._model-00001-of-00002.safetensors", "consolidated.safetensors"]
)
def test_safetensors_that_lie_beside_a_model(beside: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "llama", shards=2)
    (folder / "model.safetensors.index.json").unlink()
    (folder / beside).write_bytes(b"x")
    assert opened(folder).config == tiny_config("llama")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/owner/name", "owner/name"),
        ("https://huggingface.co/owner/name/tree/main", "owner/name"),
        ("https://huggingface.co/owner/name/resolve/main/m.gguf?download=true", "owner/name:m.gguf"),
        ("huggingface.co/owner/name/blob/main/q4/m.gguf", "owner/name:q4/m.gguf"),
        ("hf.co/owner/name:Q4_K_M", "owner/name"),
        ("hf.co/owner/name:m.gguf", "owner/name:m.gguf"),
        ("hf://owner/name", "owner/name"),
        ("https://huggingface.co/owner/name/resolve/main/config.json", "owner/name"),
    ],
)
def test_an_address_is_told_the_name_in_it(address: str, name: str) -> None:
    """ollama and LM Studio accept such addresses, and users paste them."""
    assert name_in(address) == name
    for call in (pophood_hub.pull, pophood_hub.locate):
        with pytest.raises(
            BadInput, match=f"is not a model.*: wanted the name in this address: {re.escape(name)}$"
        ):
            call(address)


@pytest.mark.parametrize(
    "address", ["https://evil.example/owner/name", "huggingface.co/owner", "hf.co/a/b..c", "gpt2"]
)
def test_other_addresses_hold_no_name(address: str) -> None:
    assert name_in(address) is None


def test_a_split_model_of_which_one_part_was_fetched(tmp_path: Path) -> None:
    """llama.cpp #15164: only the first of thirteen parts was downloaded."""
    tiny_gguf(tmp_path / "m.gguf", "llama", part_tensors=8)
    first, *others = sorted(tmp_path.glob("m-*.gguf"))
    for other in others:
        other.unlink()
    with pytest.raises(
        NotFound, match=r"part 2 of 3, 'm-00002-of-00003.gguf', is missing: put all parts in one"
    ):
        opened(first)


@pytest.mark.parametrize("name", ["m.gguf", "model.safetensors"])
def test_a_download_that_was_cut(name: str, tmp_path: Path) -> None:
    """ollama #1395 and many others: the error was about the contents, not about the length."""
    folder = tiny_folder(tmp_path / "m", "llama")
    path = tiny_gguf(tmp_path / name, "llama") if name.endswith("gguf") else folder / name
    path.write_bytes(path.read_bytes()[:-5_000])
    with pytest.raises(
        BadFile, match=r"past the end of the data.*the file is truncated or forged: fetch it again"
    ):
        opened(path)
