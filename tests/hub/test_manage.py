"""The commands list, use and rm, and a thousand hostile names that touch nothing outside the store."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadInput, NotFound, PophoodError
from pophood.hub.store import read_provenance
from tests.hub.fake_hub import FakeHub, gpt2_files
from tests.hub.test_choice import put, put_in_cache


def test_list_tells_size_kind_where_and_source(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    hub.add("owner/m", {"a.gguf": b"A" * 10, "b.gguf": b"B" * 20})
    gpt2 = pophood_hub.pull("gpt2", announce=str)
    pophood_hub.pull("owner/m:b.gguf", announce=str)
    put_in_cache(tmp_path, "Qwen/Qwen3-0.6B")
    listed = {model.name: model for model in pophood_hub.list_models()}
    assert set(listed) == {"gpt2", "owner/m:b.gguf", "Qwen/Qwen3-0.6B"}
    assert listed["gpt2"].source == f"{hub.endpoint}/openai-community/gpt2"
    assert listed["gpt2"].size == sum(path.stat().st_size for path in gpt2.path.iterdir())
    assert [listed[n].kind for n in ("gpt2", "owner/m:b.gguf")] == ["safetensors", "gguf"]
    assert [listed[n].where for n in ("gpt2", "Qwen/Qwen3-0.6B")] == ["store", "hf-cache"]
    assert [name for name, model in listed.items() if model.in_use] == ["gpt2"]
    assert all(pophood_hub.locate(name, offline=True).path == model.path for name, model in listed.items())


def test_what_is_not_whole_is_not_listed(home: Path, tmp_path: Path) -> None:
    models = home / "models"
    put(models / "no-weights", {"config.json": b"{}", "tokenizer.json": b"{}"})
    put(models / "no-config", {"model.safetensors": b"x"})
    index = json.dumps(
        {"weight_map": {"a": "model-1.safetensors", "b": "../../outside.safetensors"}}
    ).encode()
    put(
        models / "leads-out",
        {"config.json": b"{}", "model.safetensors.index.json": index, "model-1.safetensors": b"x"},
    )
    (models / "outside.safetensors").write_bytes(b"x")
    put(models / ".incoming" / "owner--one@1", {"one.gguf": b"GGUF"})
    put(models / "owner" / "part", {"one.gguf.part": b"GGUF"})
    (tmp_path / "hf" / "hub" / "models--x--y" / "snapshots" / "notacommit").mkdir(parents=True)
    snapshots = tmp_path / "hf" / "hub" / "models--x--z" / "snapshots"
    put(snapshots / ("b" * 40), {"config.json": b"{}"})
    put(snapshots / ("c" * 40), {"config.json": b"{}", "model.safetensors": b"x", "vocab.json": b"{}"})
    assert pophood_hub.list_models() == []


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"format": 1, "name": 7}',
        b'{"format": 1, "name": "\\u001b[31m"}',
        b"[" * 99_999,
    ],
)
def test_a_damaged_note_hides_no_model(home: Path, note: bytes) -> None:
    folder = put(home / "models" / "owner" / "mine")
    (folder / "pophood.json").write_bytes(note)
    assert read_provenance(folder) is None
    assert [model.name for model in pophood_hub.list_models()] == ["owner/mine"]


def test_remove(hub: FakeHub, home: Path) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    found = pophood_hub.pull("gpt2", announce=str)
    pophood_hub.use("gpt2")
    questions: list[str] = []

    def no(question: str) -> bool:
        questions.append(question)
        return False

    assert pophood_hub.remove("gpt2", confirm=no) is None
    assert found.path.exists()
    assert questions == [f"Delete gpt2 (301.1 kB) at {found.path}?"]
    said: list[str] = []
    assert pophood_hub.remove("openai-community/gpt2", announce=said.append) == found
    assert said == ["gpt2 was chosen by `pophood use`; no model is chosen now"]
    assert pophood_hub.default_choice() is None
    assert sorted(path.name for path in (home / "models").iterdir()) == [".incoming", ".locks"]
    with pytest.raises(NotFound, match="gpt2: not in pophood's store: see `pophood list`"):
        pophood_hub.remove("gpt2")


def test_remove_takes_half_fetched_files_too(hub: FakeHub, home: Path) -> None:
    hub.add("openai-community/gpt2", gpt2_files())
    hub.wrong.cuts = [1000] + [0] * 10
    with pytest.raises(NotFound):
        pophood_hub.pull("gpt2", announce=str)
    assert list(home.rglob("*.part"))
    removed = pophood_hub.remove("gpt2")
    assert removed is not None
    assert not [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_remove_of_a_single_file_leaves_its_neighbours(home: Path) -> None:
    put(home / "models" / "mine", {"a.gguf": b"a", "b.gguf": b"b"})
    pophood_hub.remove("mine/a.gguf")
    assert [model.name for model in pophood_hub.list_models()] == ["mine"]
    assert (home / "models" / "mine" / "b.gguf").read_bytes() == b"b"


def test_remove_of_a_link_removes_the_link(home: Path, tmp_path: Path) -> None:
    real = put(tmp_path / "elsewhere" / "mine")
    (home / "models").mkdir(parents=True)
    (home / "models" / "linked").symlink_to(real)
    assert pophood_hub.locate("linked").path == home / "models" / "linked"
    pophood_hub.remove("linked")
    assert sorted(path.name for path in real.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert pophood_hub.list_models() == []


def test_remove_refuses_what_is_not_ours(home: Path, tmp_path: Path) -> None:
    mine = put(tmp_path / "mine")
    snapshot = put_in_cache(tmp_path, "owner/cached")
    with pytest.raises(PophoodError, match=r"not in pophood's store \(.*\): delete it yourself"):
        pophood_hub.remove(str(mine))
    with pytest.raises(BadInput, match="is in the Hugging Face cache"):
        pophood_hub.remove("owner/cached")
    for path in (mine, snapshot):
        assert (path / "model.safetensors").exists()


# D1: names that try to get out ---------------------------------------------------------------------------

WORDS = (
    "models gpt2 owner name canary x.gguf .incoming .locks .trash pophood.json aux.gguf nul a--b ..gguf -rf"
)
SIGNS = ".. . / // \\ ..\\ ../ ../../ ~ ~root %2e%2e %2f C: : * ? + @ … $HOME file:// http://x"
PIECES = [*WORDS.split(" "), *SIGNS.split(" "), "\0", "\n", " ", "\u202e", "a" * 300]


def hostile_names(count: int) -> Iterator[str]:
    rng = random.Random(20)
    fixed = [
        "../canary",
        "../../canary",
        "owner/../../canary",
        "owner/name:../../canary/x.gguf",
        "..",
        ".",
        "/",
        "~",
        "",
    ]
    yield from fixed
    for _ in range(count - len(fixed)):
        yield rng.choice(["", "owner/", "owner/name:"]) + "".join(rng.choices(PIECES, k=rng.randint(1, 4)))


def tree(folder: Path, but: Path) -> dict[str, bytes | None]:
    """List everything below a folder, except below another."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path != but and but not in path.parents
    }


class EveryRepo(dict[str, dict[str, bytes]]):
    """Start a hub on which every name is a model."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> dict[str, bytes]:
        return {"config.json": b"{}", "model.safetensors": b"x", "tokenizer.json": b"{}", "x.gguf": b"GGUF"}


def test_a_thousand_hostile_names_touch_nothing_outside(
    hub: FakeHub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "canary", {"x.gguf": b"GGUF", "config.json": b"{}", "model.safetensors": b"x"})
    put(home / "canary")
    put(home / "models" / "canary" / "inside")
    hub.repos = EveryRepo()
    monkeypatch.chdir(tmp_path / "canary")
    before = tree(tmp_path, home / "models")
    done: dict[str, int] = {}
    calls: dict[str, Any] = {
        "locate": lambda name: pophood_hub.locate(name, announce=str),
        "pull": lambda name: pophood_hub.pull(name, announce=str),
        "remove": lambda name: pophood_hub.remove(name, announce=str),
    }
    for name in hostile_names(1000):
        for verb, call in calls.items():
            try:
                call(name)
                done[verb] = done.get(verb, 0) + 1
            except PophoodError as error:
                assert "\n" not in str(error).replace(name, "")
    settings = str(home / "settings.json")
    after = {path: content for path, content in tree(tmp_path, home / "models").items() if path != settings}
    assert after == before
    assert done["pull"] > 5  # some of them are names


def test_a_split_gguf_in_the_cache_is_one_model(tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--owner--split" / "snapshots" / ("a" * 40)
    files = {f"{q}-0000{i}-of-00002.gguf": b"GGUF" for q in ("q4", "q8") for i in (1, 2)}
    put(snapshot, {**files, "whole.gguf": b"GGUF"})
    names = {
        f"owner/split:{file}" for file in ("q4-00001-of-00002.gguf", "q8-00001-of-00002.gguf", "whole.gguf")
    }
    assert {model.name for model in pophood_hub.list_models()} == names
    found = pophood_hub.locate("owner/split:q8-00002-of-00002.gguf", offline=True)
    assert found.path == snapshot / "q8-00001-of-00002.gguf"
    (snapshot / "q8-00002-of-00002.gguf").unlink()
    assert len(pophood_hub.list_models()) == 2
