"""Connections dropped at random moments over sockets: computing ends, and no other answer changes."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pophood
from tests.processes import HANG_SECONDS
from tests.serve.protocol.service import LOCAL, Service
from tests.serve.wire import connect, head, request
from tests.tiny import tiny_folder

PATH = "/v1/chat/completions"
WINDOW = 4096


def post(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    fields = {"host": LOCAL, "content-type": "application/json", "content-length": str(len(data))}
    return head("POST", PATH, fields) + data


def drop_some(port: int, draw: random.Random, n: int) -> None:
    """Send requests and close their connections after a while, in one of many states."""
    for _ in range(n):
        words = "x " * draw.choice([1, 300, 1_900])
        body = {
            "messages": [{"role": "user", "content": words}],
            "stream": draw.random() < 0.5,
            "n": draw.randint(1, 3),
            "ignore_eos": True,
        }
        with connect(port) as stream:
            stream.sendall(post(body))
            time.sleep(draw.random() * 0.1)
            if draw.random() < 0.3:
                stream.settimeout(0.05)
                with suppress(TimeoutError):
                    stream.recv(100)


def test_dropped_connections_cost_nothing_and_change_nothing(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "qwen2", n_positions=WINDOW)
    lasting: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "seed": 5, "max_tokens": 400}
    with Service(pophood.load(folder), together=8) as service, service.listening() as port:
        wanted = request(port, PATH, body=lasting).json["choices"]
        answers: list[Any] = []
        stop = threading.Event()

        def go_on_asking() -> None:
            while not stop.is_set():
                answers.append(request(port, PATH, body=lasting).json["choices"])

        asking = threading.Thread(target=go_on_asking)
        asking.start()
        dropping = [threading.Thread(target=drop_some, args=(port, random.Random(i), 10)) for i in range(4)]
        for thread in dropping:
            thread.start()
        for thread in dropping:
            thread.join(HANG_SECONDS)
        stop.set()
        asking.join(HANG_SECONDS)
        deadline = time.monotonic() + HANG_SECONDS
        while service.client.open_requests or service.client.gauges.running:
            assert time.monotonic() < deadline, "something is still computed"
            time.sleep(0.01)
        assert answers
        assert all(one == wanted for one in answers)
        assert service.client.gauges.waiting == 0
