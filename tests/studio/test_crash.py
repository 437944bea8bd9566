"""The model's process is killed in the middle of an answer: stream and state say so, and it goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests import processes
from tests.needs import linux
from tests.processes import HANG_SECONDS
from tests.serve.wire import LOCAL, connect, head
from tests.studio.server import StudioCommand, studio

BACK = 5.0  # seconds


def model_process(running: StudioCommand) -> int:
    """Return the number of the model's process."""
    (child,) = processes.descendants(running.process.pid)
    return child.pid


def fault(running: StudioCommand) -> str | None:
    (model,) = running.get("/state")["models"]
    told: str | None = model["fault"]
    return told


def test_a_crash_is_told_and_what_was_acknowledged_stays(tiny_model: Path, tmp_path: Path) -> None:
    linux()
    with studio(tiny_model, home=tmp_path) as running:
        assert fault(running) is None
        key = running.post("/conversations", {"title": "crash"})["id"]
        body = json.dumps(
            {"prompt": "the cat", "max_tokens": 1000, "stream": True, "ignore_eos": True}
        ).encode()
        fields: dict[str, str | None] = {
            "host": f"{LOCAL}:{running.port}",
            "origin": f"http://{LOCAL}:{running.port}",
            "cookie": running.cookie,
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        with connect(running.port) as stream:
            stream.settimeout(HANG_SECONDS)
            stream.sendall(head("POST", "/v1/completions", fields) + body)
            received = b""
            while received.count(b"data: ") < 5:
                received += stream.recv(65536)
            node = {
                "id": "n1",
                "role": "assistant",
                "text": "so far",
                "tokens": [{"id": 1, "text": "so far"}],
            }
            running.post(f"/conversations/{key}/nodes", node)
            os.kill(model_process(running), signal.SIGKILL)
            killed = time.monotonic()
            while not received.endswith(b"0\r\n\r\n"):
                received += stream.recv(65536)
        events: list[Any] = [line for line in received.split(b"\n") if line.startswith(b"data: ")]
        assert json.loads(events[-1][6:])["error"]["code"] == "engine_dead"
        assert b"[DONE]" not in received
        (kept,) = running.get(f"/conversations/{key}")["nodes"]
        assert kept["text"] == "so far"
        while fault(running) is not None:
            assert time.monotonic() - killed < BACK
            time.sleep(0.05)
        answer = running.post("/v1/completions", {"prompt": "the cat", "max_tokens": 3})
        assert answer["choices"][0]["finish_reason"]
        print(f"it computes again after {time.monotonic() - killed:.1f} s")
