"""Adapters of runs: loaded again by a later server, loaded anew when they have learned more, and deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pophood.adapters.peft import WEIGHTS
from pophood.export.adapter_writers import write_adapter
from pophood.model.bundle import open_bundle
from pophood.studio.tuning.runs import folder_name, run_name
from tests.export.adapters import random_adapter
from tests.studio.server import StudioCommand, studio


def made_run(home: Path, model: Path, name: str, rank: int = 4) -> Path:
    """Write a run that has ended and whose adapter is in use, and return the adapter's folder."""
    folder = home / "studio" / "runs" / f"0{''.join(filter(str.isalnum, name))}"
    out = folder / "out" / folder_name(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    config = open_bundle(model).config
    write_adapter(out, random_adapter(config, rank=rank), config)
    (out / "report.json").write_text("{}", encoding="utf-8")
    facts = {"id": folder.name, "created": 1.0, "words": ["a.txt", "-m", str(model)], "name": name}
    facts |= {"out": f"out/{out.name}", "used": True, "asked": {"files": ["a.txt"], "model": model.name}}
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return out


def answer(running: StudioCommand, adapter: str | None) -> Any:
    body: dict[str, Any] = {"prompt": "The cat sat", "max_tokens": 4, "temperature": 0, "logprobs": 1}
    body |= {"adapters": [{"name": adapter}]} if adapter else {}
    return running.post("/v1/completions", body)["choices"][0]["logprobs"]


def test_adapters_in_use_come_back_and_a_missing_one_is_told(tiny_model: Path, tmp_path: Path) -> None:
    made_run(tmp_path, tiny_model, "Sea")
    gone = made_run(tmp_path, tiny_model, "Gone")
    (gone / WEIGHTS).unlink()
    with studio(tiny_model, home=tmp_path) as running:
        assert running.facts["model"] == tiny_model.name
        state = running.get("/state")
        assert state["adapters"] == ["Sea"]
        (told,) = state["missing"]
        assert told == f"The adapter 'Gone' is not loaded: {gone / WEIGHTS} is gone"
        assert [line for line in running.said if "Gone" in line] == [told]
        base, first = answer(running, None), answer(running, "Sea")
        assert first != base

        made_run(tmp_path, tiny_model, "Sea", rank=2)  # it has learned more
        assert answer(running, "Sea") == first
        assert running.post("/tune/0Sea/use", {}) == {"adapter": "Sea", "model": tiny_model.name}
        assert answer(running, "Sea") not in (first, base)
        view = running.post("/views/next", {"text": "The cat sat", "adapter": "Sea"})
        assert view["title"].endswith(", with the adapter Sea")

        assert running.ask("/tune/0Sea", method="DELETE").status == 200
        assert running.get("/state")["adapters"] == []
        refused = running.ask("/v1/completions", {"prompt": "a", "adapters": [{"name": "Sea"}]})
        assert (refused.status, refused.code) == (404, "adapter_not_found")
        assert running.ask("/models/unload", {"model": tiny_model.name}).status == 200
        assert answer(running, None) == base
        assert running.ask("/tune/0Gone", method="DELETE").status == 200
        assert running.get("/state")["missing"] == []


@pytest.mark.parametrize(
    ("asked", "taken", "name", "folder"),
    [
        ({"files": ["notes.txt"]}, {"notes-lora", "notes-lora-2"}, "notes-lora-3", "notes-lora-3"),
        ({"files": ["a b.jsonl"], "method": "last", "name": " "}, set(), "a b-last", "a-b-last"),
        ({"files": ["a.txt"], "name": " The  sea/../shore "}, set(), "The sea/../shore", "The-sea-..-shore"),
        ({"files": ["a.txt"], "name": "…"}, set(), "…", "result"),
    ],
)
def test_runs_have_readable_names(asked: dict[str, Any], taken: set[str], name: str, folder: str) -> None:
    assert run_name(asked, taken) == name
    assert folder_name(name) == folder
