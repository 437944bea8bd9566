"""Pulling from a correct hub: chosen files, messages, provenance, and a second pull."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadFile, BadInput, NotFound, PophoodError, Unsupported
from pophood.hub import progress
from pophood.system import size_text
from tests.hub.fake_hub import GPT2_WANTED, FakeHub, git_blob, gpt2_files


def quiet(line: str) -> None:
    pass


def test_the_chosen_files_and_their_provenance(hub: FakeHub, home: Path) -> None:
    files = gpt2_files()
    commit = hub.add("openai-community/gpt2", files)
    said: list[str] = []
    moves: list[pophood_hub.Progress] = []
    found = pophood_hub.pull("gpt2", announce=said.append, progress=moves.append)

    folder = home / "models" / "openai-community" / "gpt2"
    assert found == pophood_hub.Located(
        "gpt2", folder, f"{hub.endpoint}/openai-community/gpt2", commit, "mit", "safetensors", "store"
    )
    assert {path.name for path in folder.iterdir()} == GPT2_WANTED | {"pophood.json"}
    assert all((folder / name).read_bytes() == files[name] for name in GPT2_WANTED)
    note = json.loads((folder / "pophood.json").read_text())
    assert (note["name"], note["revision"], note["licence"]) == ("gpt2", commit, "mit")
    assert note["files"]["config.json"] == {"size": 22, "git_blob": git_blob(files["config.json"])}
    assert len(note["files"]["model.safetensors"]["sha256"]) == 64
    size = sum(len(files[name]) for name in GPT2_WANTED)
    assert size_text(size) in said[0]
    assert str(folder) in said[0]
    assert " free)" in said[0]
    assert moves[-1].done == moves[-1].size == size
    assert not list((home / "models" / ".incoming").iterdir())
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_only_what_was_asked_for_is_asked_of_the_hub(hub: FakeHub) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    pophood_hub.pull("gpt2", announce=quiet)
    assert len(hub.paths("/api/models/")) == 1
    asked = {path.rsplit("/", 1)[-1] for path in hub.paths("/openai-community/gpt2/resolve/")}
    assert asked == GPT2_WANTED
    names = {name for _, _, headers in hub.asked for name in headers}
    assert names <= {"host", "user-agent", "accept-encoding", "connection"}
    assert {headers["user-agent"] for _, _, headers in hub.asked} == {"pophood"}


def test_a_second_pull_asks_nothing_and_force_fetches_again(hub: FakeHub) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    first = pophood_hub.pull("gpt2", announce=quiet)
    hub.asked.clear()
    said: list[str] = []
    assert pophood_hub.pull("gpt2", announce=said.append) == first
    assert hub.asked == []
    assert "already here at revision" in said[0]
    assert "--force" in said[0]
    newer = hub.add("openai-community/gpt2", gpt2_files(seed=1))
    again = pophood_hub.pull("gpt2", force=True, announce=quiet)
    assert again.revision == newer
    assert (again.path / "model.safetensors").read_bytes() == gpt2_files(seed=1)["model.safetensors"]
    assert pophood_hub.locate("gpt2") == again


def test_a_revision_is_pinned_to_its_commit(hub: FakeHub) -> None:
    commit = hub.add("owner/name", gpt2_files())
    assert pophood_hub.pull("owner/name", revision="v1", announce=quiet).revision == commit
    asked = [path for path in hub.paths() if "/resolve/" in path]
    assert all(f"/resolve/{commit}/" in path for path in asked)
    hub.asked.clear()
    pophood_hub.pull("owner/name", revision=commit, announce=quiet)
    assert hub.asked == []  # that commit is here
    said: list[str] = []
    pophood_hub.pull("owner/name", revision="main", announce=said.append)
    assert len(hub.asked) == 1  # asks what main is now, and finds it here
    assert "already here" in said[0]
    newer = hub.add("owner/name", gpt2_files(seed=2))
    pulled = pophood_hub.pull("owner/name", revision="main", announce=said.append)
    assert pulled.revision == newer
    assert any(f"replaces revision {commit}" in line for line in said)
    with pytest.raises(NotFound, match=r"owner/name: has no revision v7: see http.*/owner/name/tree/main"):
        pophood_hub.pull("owner/name", revision="v7", announce=quiet)
    for bad in ("../..", "a b", "", "x" * 300, "a//b", "--upload-pack", "a\n"):
        with pytest.raises(BadInput, match="is not a revision"):
            pophood_hub.pull("owner/name", revision=bad, announce=quiet)


def test_shards(hub: FakeHub) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": b"%d" % i * 1000 for i in (1, 2)}
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": index.encode(),
        **shards,
    }
    hub.add("owner/sharded", {**files, "adapter_model.safetensors": b"no", "consolidated.safetensors": b"no"})
    found = pophood_hub.pull("owner/sharded", announce=quiet)
    assert {path.name for path in found.path.iterdir()} == {*files, "pophood.json"}
    (found.path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(NotFound):  # a folder without one of its shards is not a model
        pophood_hub.locate("owner/sharded", offline=True)


def test_a_repo_of_several_gguf_files_lists_them(hub: FakeHub, home: Path) -> None:
    files = {
        "README.md": b"",
        "m-Q4_1.gguf": b"4" * 1500,
        "m-Q8_0.gguf": b"8" * 2_000_000,
        "sub/m-F16.gguf": b"f" * 10,
    }
    hub.add("owner/m-GGUF", files)
    with pytest.raises(
        BadInput, match=r"several models: name one of these as owner/m-GGUF:FILE: m-Q4_1.gguf \(1.5 kB\)"
    ):
        pophood_hub.pull("owner/m-GGUF", announce=quiet)
    found = pophood_hub.pull("owner/m-GGUF:m-Q4_1.gguf", announce=quiet)
    assert found.path == home / "models" / "owner" / "m-GGUF+m-Q4_1" / "m-Q4_1.gguf"
    assert (found.kind, found.name, found.path.read_bytes()) == (
        "gguf",
        "owner/m-GGUF:m-Q4_1.gguf",
        b"4" * 1500,
    )
    deeper = pophood_hub.pull("owner/m-GGUF:sub/m-F16.gguf", announce=quiet)
    assert deeper.path.name == "m-F16.gguf"
    hub.asked.clear()
    assert pophood_hub.locate("owner/m-GGUF:m-Q4_1.gguf") == found
    assert {m.name for m in pophood_hub.list_models()} == {found.name, deeper.name}
    with pytest.raises(BadInput, match=r"has no m-Q2_K\.gguf: name one of these as"):
        pophood_hub.pull("owner/m-GGUF:m-Q2_K.gguf", announce=quiet)


def test_a_repo_with_one_gguf_needs_no_file_name(hub: FakeHub) -> None:
    hub.add("owner/one", {"README.md": b"", "one.gguf": b"GGUF1"})
    found = pophood_hub.pull("owner/one", announce=quiet)
    assert (found.kind, found.path.name, found.name) == ("gguf", "one.gguf", "owner/one")
    assert pophood_hub.locate("owner/one", offline=True) == found


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"config.json": b"{}", "pytorch_model.bin": b"x"},
            "only pickled weights, which can run any program",
        ),
        ({"README.md": b""}, "neither safetensors with a config.json nor a GGUF file"),
        (
            {"config.json": b"{}", "a.safetensors": b"", "b.safetensors": b""},
            "a.safetensors, b.safetensors but no",
        ),
    ],
)
def test_repos_that_hold_nothing_to_run(hub: FakeHub, files: dict[str, bytes], words: str) -> None:
    hub.add("owner/name", files)
    with pytest.raises(Unsupported, match=words):
        pophood_hub.pull("owner/name", announce=quiet)


@pytest.mark.parametrize("named", ["", ":m-00001-of-00003.gguf", ":m-00003-of-00003.gguf"])
@pytest.mark.parametrize("folder", ["", "Q4_K_M/"])
def test_all_parts_of_a_split_gguf_are_fetched(hub: FakeHub, named: str, folder: str) -> None:
    parts = {f"{folder}m-0000{i}-of-00003.gguf": b"GGUF" + bytes([i]) * 1000 for i in (1, 2, 3)}
    hub.add("owner/split", {"README.md": b"", **parts})
    said: list[str] = []
    found = pophood_hub.pull(f"owner/split{named.replace(':', f':{folder}')}", announce=said.append)
    assert (found.kind, found.path.name) == ("gguf", "m-00001-of-00003.gguf")
    assert "3 files" in said[0] and "3.0 kB" in said[0]
    for path, content in parts.items():
        assert (found.path.parent / path.rsplit("/", 1)[-1]).read_bytes() == content
    hub.asked.clear()
    assert pophood_hub.locate(found.name) == found
    assert pophood_hub.locate(f"owner/split{named.replace(':', f':{folder}')}") == found
    (listed,) = pophood_hub.list_models()
    assert (listed.name, listed.size > 3000, hub.asked) == (found.name, True, [])
    (found.path.parent / "m-00002-of-00003.gguf").unlink()
    assert pophood_hub.list_models() == []


def test_a_repo_of_several_split_models_lists_each_once(hub: FakeHub) -> None:
    files = {f"{q}-0000{i}-of-00002.gguf": b"x" * 600 for q in ("q4", "q8") for i in (1, 2)}
    hub.add("owner/split", {**files, "f16.gguf": b"x"})
    with pytest.raises(
        BadInput, match=r"FILE: q4-00001-of-00002.gguf \(1.2 kB\), q8-00001-of-00002.gguf \(1.2 kB\), f16"
    ):
        pophood_hub.pull("owner/split", announce=quiet)
    assert pophood_hub.pull("owner/split:q8-00002-of-00002.gguf", announce=quiet).name == (
        "owner/split:q8-00001-of-00002.gguf"
    )


@pytest.mark.parametrize("lost", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"])
def test_a_repo_that_lacks_a_part(hub: FakeHub, lost: str) -> None:
    files = {f"m-0000{i}-of-00002.gguf": b"GGUF" for i in (1, 2)}
    del files[lost]
    hub.add("owner/split", files)
    with pytest.raises(BadFile, match=f"holds a model in 2 parts and lacks {lost}: take another file"):
        pophood_hub.pull("owner/split", announce=quiet)


@pytest.mark.parametrize("stem", ["model", "consolidated"])
def test_shards_without_an_index(hub: FakeHub, stem: str) -> None:
    shards = {f"{stem}-0000{i}-of-00003.safetensors": b"%d" % i * 1000 for i in (1, 2, 3)}
    files = {"config.json": b"{}", "tokenizer.json": b"{}", **shards}
    hub.add("owner/sharded", {**files, "adapter_model.safetensors": b"no"})
    found = pophood_hub.pull("owner/sharded", announce=quiet)
    assert {path.name for path in found.path.iterdir()} == {*files, "pophood.json"}
    del files[f"{stem}-00002-of-00003.safetensors"]
    hub.add("owner/half", files)
    with pytest.raises(BadFile, match=f"lacks {stem}-00002-of-00003.safetensors"):
        pophood_hub.pull("owner/half", announce=quiet)


def test_the_person_is_asked_and_may_decline(hub: FakeHub, home: Path) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    questions: list[str] = []

    def no(question: str) -> bool:
        questions.append(question)
        return False

    with pytest.raises(NotFound, match="not fetched, as you chose"):
        pophood_hub.pull("gpt2", announce=quiet, confirm=no)
    assert "300.1 kB" in questions[0]
    assert not (home / "models" / "openai-community").exists()
    assert not [path for path in hub.paths() if "/resolve/" in path]


def test_without_the_disk_for_it_nothing_is_fetched(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    monkeypatch.setattr(progress, "free_disk", lambda path: 1000)
    with pytest.raises(
        PophoodError, match=r"disk is too full: needed 300,\d\d\d bytes, free 1,000 at .*POPHOOD_HOME"
    ):
        pophood_hub.pull("gpt2", announce=quiet)
    assert not [path for path in hub.paths() if "/resolve/" in path]


def test_offline_asks_nothing(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    with pytest.raises(NotFound, match=r"connections are forbidden \(--offline, POPHOOD_OFFLINE\)"):
        pophood_hub.pull("gpt2", offline=True, announce=quiet)
    monkeypatch.setenv("POPHOOD_OFFLINE", "1")
    for call in (pophood_hub.pull, pophood_hub.locate):
        with pytest.raises(NotFound, match="connections are forbidden"):
            call("gpt2", announce=quiet)
    assert hub.asked == []


def test_a_token_is_sent_only_if_it_was_set_and_only_to_the_hub(
    hub: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_implicit")  # what `hf auth login` leaves behind
    hub.add("owner/name", gpt2_files())
    pophood_hub.pull("owner/name", announce=quiet)
    assert not any("authorization" in headers for _, _, headers in hub.asked)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.asked.clear()
    pophood_hub.pull("owner/name", announce=quiet, force=True)
    tokens = {path.partition("?")[0]: headers.get("authorization") for _, path, headers in hub.asked}
    assert tokens.pop("/cdn/owner/name/model.safetensors") is None  # another origin: localhost, not 127.0.0.1
    assert set(tokens.values()) == {"Bearer hf_mine"}


def test_a_list_without_sizes_and_hashes_is_completed_from_headers(hub: FakeHub) -> None:
    def bare(content: dict[str, object]) -> dict[str, object]:
        siblings = content["siblings"]
        assert isinstance(siblings, list)
        return content | {"siblings": [{"rfilename": s["rfilename"]} for s in siblings]}

    hub.wrong.listing = bare
    files = gpt2_files()
    hub.add("owner/name", files)
    found = pophood_hub.pull("owner/name", announce=quiet)
    assert all((found.path / name).read_bytes() == files[name] for name in GPT2_WANTED)
    assert len([1 for method, _, _ in hub.asked if method == "HEAD"]) >= len(GPT2_WANTED)


@pytest.mark.parametrize(
    "path",
    [
        "../evil.gguf",
        "/etc/evil.gguf",
        "a/../../evil.gguf",
        "C:/evil.gguf",
        "a\\..\\evil.gguf",
        "a//b.gguf",
        "\0.gguf",
    ],
)
def test_a_list_that_leads_out_of_the_folder_is_refused(hub: FakeHub, path: str) -> None:
    hub.add("owner/name", {path: b"evil"})
    with pytest.raises(BadFile, match="leads out of the model's folder: refused"):
        pophood_hub.pull("owner/name", announce=quiet)


@pytest.mark.parametrize("path", ["nul.gguf", "a?b.gguf", ".hidden.gguf", "x" * 200 + ".gguf", "-rf.gguf"])
def test_file_names_that_not_every_system_can_hold(hub: FakeHub, path: str) -> None:
    hub.add("owner/name", {path: b"evil"})
    with pytest.raises(BadFile, match="is not a valid file name on every system"):
        pophood_hub.pull("owner/name", announce=quiet)
