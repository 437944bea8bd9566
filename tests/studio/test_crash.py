"""The model's process is killed in the middle of an answer: it is told, and the answer goes on behind it."""

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


def tokens(body: bytes) -> list[int]:
    """Return the ids of the tokens that the whole lines of a stream tell."""
    pieces = [json.loads(line[6:]) for line in body.split(b"\n")[:-1] if line.startswith(b"data: {")]
    choices = [choice for piece in pieces for choice in piece.get("choices", ())]
    return [record["id"] for choice in choices for record in choice.get("inspect", ())]


def asking(prompt: list[int], most: int) -> dict[str, Any]:
    """Return a request as the page sends it, for an answer that is repeated by its seed."""
    told = {"inspect": {"top": 1}, "logprobs": 0, "stream_options": {"interval_ms": 100}}
    return {"prompt": prompt, "max_tokens": most, "seed": 7, "ignore_eos": True, "stream": True, **told}


def test_a_crash_is_told_and_the_answer_goes_on_behind_its_last_token(
    tiny_model: Path, tmp_path: Path
) -> None:
    linux()
    prompt, most = [5, 6, 7, 8], 900
    with studio(tiny_model, home=tmp_path) as running:
        assert fault(running) is None
        whole = tokens(running.ask("/v1/completions", asking(prompt, most)).body)
        assert len(whole) == most
        key = running.post("/conversations", {"title": "crash"})["id"]
        body = json.dumps(asking(prompt, most)).encode()
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
            while not tokens(received):
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
        got = tokens(received)
        assert got == whole[: len(got)]
        rest = asking([*prompt, *got], most - len(got))
        while (answer := running.ask("/v1/completions", rest)).status == 503:
            assert time.monotonic() - killed < BACK
            time.sleep(0.05)
        assert got + tokens(answer.body) == whole
        assert fault(running) is None
