"""Tuning through the routes: files, the plan, a run with its events, pause, resume, its adapter in use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pophood.studio.tuning import runs
from pophood.studio.tuning.runs import Runs
from pophood.train.events import Finished, Started, Step, as_line
from tests import processes
from tests.needs import linux
from tests.processes import HANG_SECONDS
from tests.serve.wire import LOCAL, connect, head, unchunked
from tests.studio.server import API, StudioCommand, studio

TEXT = "The cat sat on the mat. The dog lay on the log.\n" * 200
FEW = {"length": 32, "batch_size": 1, "validation": 0}


def upload(running: StudioCommand, name: str, content: bytes, kind: str = "application/octet-stream") -> Any:
    headers = {"content-type": kind}
    return running.ask(f"/files?name={name}", content, method="POST", headers=headers)


@pytest.fixture(scope="module")
def tuner(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioCommand]:
    with studio(tiny_model, home=tmp_path_factory.mktemp("home")) as running:
        assert upload(running, "notes.txt", TEXT.encode()).status == 201
        yield running


def events(running: StudioCommand, run: str, after: int = 0) -> list[dict[str, Any]]:
    """Return the events of a run until its stream ends."""
    path = f"{API}/tune/{run}/events?after={after}"
    host = f"{LOCAL}:{running.port}"
    with connect(running.port) as stream:
        stream.settimeout(HANG_SECONDS)
        stream.sendall(head("GET", path, {"host": host, "cookie": running.cookie, "connection": "close"}))
        received = bytearray()
        while part := stream.recv(65536):
            received += part
    body = unchunked(bytes(received).partition(b"\r\n\r\n")[2])
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]


def until(running: StudioCommand, run: str, state: str) -> dict[str, Any]:
    """Wait until a run is in a state, and return it."""
    end = time.monotonic() + HANG_SECONDS
    while time.monotonic() < end:
        told: dict[str, Any] = running.get(f"/tune/{run}")
        if told["state"] == state:
            return told
        assert told["state"] == "running", told
        time.sleep(0.1)
    raise TimeoutError(state)


def test_files_come_whole_and_under_plain_names(running: StudioCommand) -> None:
    assert running.get("/files") == {"files": []}
    content = bytes(range(256)) * 20_000  # more than a body of JSON may have
    assert upload(running, "a%20b.txt", content).json == {"name": "a b.txt", "size": len(content)}
    assert upload(running, "a%20b.txt", b"new").status == 201
    assert running.get("/files")["files"] == [{"name": "a b.txt", "size": 3}]
    for name in ("", "..", ".hidden", "a%2Fb", "..%5Cb", "a%00b", "x" * 200):
        assert upload(running, name, b"x").status == 400, name
    assert upload(running, "a.txt", b"{}", "application/json").status == 415
    assert running.ask("/files/a%20b.txt", method="DELETE").status == 200
    assert running.ask("/files/a%20b.txt", method="DELETE").status == 404


@pytest.mark.full
def test_the_plan_says_what_would_be_learned(tuner: StudioCommand) -> None:
    told = tuner.post("/tune/plan", {"files": ["notes.txt"], "steps": 2, **FEW})
    assert told["data"]["format"].startswith("text")
    assert {token["state"] for token in told["examples"][0]["tokens"]} <= {"trained", "ignored", "end", "cut"}
    assert told["plan"]["steps"] == 2
    assert told["plan"]["memory"] > 0


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"files": []}, 400, "files"),
        ({"files": ["none.txt"]}, 404, "no file"),
        ({"files": ["../secret"]}, 400, "without folders"),
        ({"files": ["notes.txt"], "minutes": 1, "steps": 2}, 400, "give one"),
        ({"files": ["notes.txt"], "minutes": -1}, 400, "minutes"),
        ({"files": ["notes.txt"], "method": "all"}, 400, "method"),
        ({"files": ["notes.txt"], "model": "none"}, 404, "does not exist"),
        ({"files": ["notes.txt"], "method": "full", "rank": 4}, 400, "--rank"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    tuner: StudioCommand, body: dict[str, Any], status: int, says: str
) -> None:
    refused = tuner.ask("/tune/plan", body)
    assert (refused.status, says in refused.json["error"]["message"]) == (status, True), refused.body


def test_a_plan_ends_with_its_page(tuner: StudioCommand) -> None:
    linux()
    body = json.dumps({"files": ["notes.txt"], "minutes": 1, **FEW}).encode()
    fields: dict[str, str | None] = {
        "host": f"{LOCAL}:{tuner.port}",
        "origin": f"http://{LOCAL}:{tuner.port}",
        "cookie": tuner.cookie,
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    with connect(tuner.port) as stream:
        stream.sendall(head("POST", f"{API}/tune/plan", fields) + body)
        wait_for(lambda: planning(tuner))
    wait_for(lambda: not planning(tuner))


def test_why_a_run_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr(runs, "begin", lambda words, folder: begun.append(list(words)))
    (out := tmp_path / "1" / "out" / "sea").mkdir(parents=True)
    (out / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    facts = {"id": "1", "created": 1.0, "words": ["a.txt", "-m", "tiny", "--minutes=2.5"], "out": "out/sea"}
    (tmp_path / "1" / "run.json").write_text(json.dumps({**facts, "asked": {}}), encoding="utf-8")
    every = Runs(tmp_path)
    events = (
        as_line(Started(0, 9, 32, 10, 100, 2.5)) + "\n" + as_line(Step(3, 1, 1, 1, 1, 1, 1, 0, 9, 1)) + "\n"
    )
    for reason in ("clock", "stopped", None):
        last = as_line(Finished(3, reason, 150.0)) + "\n" if reason else ""
        (out / "events.jsonl").write_text(events + last, encoding="utf-8")
        (told,) = every.listed()
        assert (told["state"], told["ended"]) == ("paused", reason)
        every.resume("1")
    assert ["--minutes=2.5" in words for words in begun] == [True, False, False]


def planning(tuner: StudioCommand) -> bool:
    """Return whether the studio has a process that reads data or times steps."""
    return any(" tune " in one.command for one in processes.descendants(tuner.process.pid))


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.full
def test_a_run_is_watched_paused_resumed_and_used(tuner: StudioCommand) -> None:
    asked = {"files": ["notes.txt"], "steps": 400, "prompts": ["The cat"], **FEW}
    run = tuner.post("/tune", asked)["run"]
    refused = tuner.ask("/tune", asked)
    assert (refused.status, refused.code) == (409, "run_running")
    assert tuner.ask(f"/tune/{run}", method="DELETE").status == 409
    path = Path(tuner.get(f"/tune/{run}")["out"]) / "events.jsonl"
    wait_for(lambda: path.is_file() and '"event": "step"' in path.read_text(encoding="utf-8"))
    tuner.post(f"/tune/{run}/pause", {})
    seen = events(tuner, run)
    assert seen[-1] == {"event": "state", "state": "paused"}, seen[-3:]
    assert until(tuner, run, "paused")["adapter"]
    numbered = [event for event in seen if "number" in event]
    assert [event["number"] for event in numbered] == list(range(1, len(numbered) + 1))
    assert numbered[0]["event"] == "started"
    tuner.post(f"/tune/{run}/resume", {})
    more = events(tuner, run, after=len(numbered))
    assert more[-1]["state"] == "finished", more[-3:]
    assert max(event["step"] for event in more if event["event"] == "step") == 400
    told = until(tuner, run, "finished")
    assert told["card"]["actual"]["steps"] == 400
    assert tuner.ask(f"/tune/{run}/resume", {}).status == 409
    check_use(tuner, run)


def check_use(tuner: StudioCommand, run: str) -> None:
    """The adapter of a run is another model in chat and in views, also after the process has ended."""
    body = {"prompt": "The cat sat", "max_tokens": 8, "temperature": 0, "logprobs": 1}
    base = tuner.post("/v1/completions", body)["choices"][0]["logprobs"]
    name = tuner.get(f"/tune/{run}")["name"]
    assert tuner.post(f"/tune/{run}/use", {})["adapter"] == name == "notes-lora"
    assert name in tuner.get("/state")["adapters"]
    tuned = tuner.post("/v1/completions", body | {"adapters": [{"name": name}]})["choices"][0]["logprobs"]
    assert tuned != base
    view = tuner.post("/views/next", {"text": "The cat sat", "adapter": name})
    assert "adapter" in view["title"] and f"--adapter {tuner.get(f'/tune/{run}')['out']}" in view["command"]
    assert tuner.post("/v1/completions", body)["choices"][0]["logprobs"] == base
    tuner.post("/models/unload", {"model": tuner.facts["model"]})
    report = tuner.ask(f"/tune/{run}/report")
    assert b"<html" in report.body and "sandbox" in report.headers["content-security-policy"]
    told = tuner.post(f"/tune/{run}/export", {"to": "gguf", "type": "f32"})
    assert Path(told["place"]).stat().st_size > 100_000 and told["receipt"]
    assert tuner.ask(f"/tune/{run}/export", {"to": "folder", "type": "q8_0"}).status == 400
    again = tuner.post("/v1/completions", body | {"adapters": [{"name": name}]})["choices"][0]["logprobs"]
    assert again == tuned


def test_a_run_survives_the_server_and_can_be_cancelled(tiny_model: Path, tmp_path: Path) -> None:
    with studio(tiny_model, home=tmp_path) as first:
        upload(first, "notes.txt", TEXT.encode())
        run = first.post("/tune", {"files": ["notes.txt"], "minutes": 30, **FEW})["run"]
        assert first.get(f"/tune/{run}")["state"] == "running"
        first.process.kill()
        first.process.wait()
        with studio(tiny_model, home=tmp_path) as second:
            assert [one["state"] for one in second.get("/tune")["runs"]] == ["running"]
            second.post(f"/tune/{run}/cancel", {})
            until(second, run, "cancelled")
            assert second.ask(f"/tune/{run}/pause", {}).status == 409
            assert second.ask(f"/tune/{run}", method="DELETE").status == 200
            assert second.get("/tune")["runs"] == []
            for name in ("nobody", "a.b"):
                assert second.ask(f"/tune/{name}").status == 404


def test_a_run_that_fails_says_why(tuner: StudioCommand) -> None:
    upload(tuner, "empty.txt", b"\n")
    run = tuner.post("/tune", {"files": ["empty.txt"], "steps": 1})["run"]
    seen = events(tuner, run)
    assert seen[-1]["state"] == "failed"
    assert "pophood: " in tuner.get(f"/tune/{run}")["error"]
