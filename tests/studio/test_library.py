"""The library through its routes: what is here, what fits, a pull that fails, a model that is removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.studio.server import StudioCommand, studio


def test_models_here_and_elsewhere_are_told_apart(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "models" / "mine")
    with studio(tiny_model, home=tmp_path) as running:
        told = running.get("/library")
        (mine,) = told["models"]
        assert (mine["name"], mine["fits"], mine["state"]) == ("mine", True, "unloaded")
        assert mine["size"] > 100_000 and mine["memory"] > mine["size"]
        assert {"gpt2", "smollm2"} <= {one["name"] for one in told["others"]}
        assert told["offline"] is True
        running.post("/models/load", {"model": "mine"})
        assert running.get("/library")["models"][0]["state"] == "loaded"
        refused = running.ask("/library/mine", method="DELETE")
        assert (refused.status, refused.code) == (409, "model_loaded")
        running.post("/models/unload", {"model": "mine"})
        assert running.ask("/library/mine", method="DELETE").status == 200
        assert running.get("/library")["models"] == []
        assert running.ask("/library/mine", method="DELETE").status == 400


def test_a_pull_without_a_network_says_so(running: StudioCommand) -> None:
    answer = running.ask("/library/gpt2/pull", {})
    assert answer.status == 200
    (line,) = [line for line in answer.body.decode().split("\n") if line]
    event = json.loads(line.removeprefix("data: "))
    assert event["event"] == "error"
    assert "connections are forbidden" in event["message"]
