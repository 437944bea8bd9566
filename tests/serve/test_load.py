"""Very many short requests to one server: nothing that it holds grows, and none of its answers is a 5xx."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.needs import linux
from tests.serve.command import Command, command
from tests.serve.counting import descriptors, reserved, resident, server_errors, settled, threads
from tests.serve.wire import LOCAL, connect, head, read_response, request
from tests.tiny import tiny_folder

CLIENTS = 8
WINDOW = 128
PER_CONNECTION = 50  # requests, then a new connection
KINDS = 500  # different requests of each client
DRIFT = 0.02
# Few different words: the encoders of the tokenizer keep up to 10,000 each, some megabytes that fill up late.
_LETTERS = random.Random(0)
WORDS = ["".join(_LETTERS.choices("abcde", k=_LETTERS.randint(1, 6))) for _ in range(300)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Command]:
    model = tiny_folder(tmp_path / "tiny", "qwen2", n_positions=WINDOW)
    with command(model, "--parallel", "8", "--memory", "2M", home=tmp_path) as running:
        yield running


def short_request(draw: random.Random) -> tuple[str, dict[str, Any], int]:
    """Return a route, a request that costs little, and the status of its answer."""
    words = " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
    fields: dict[str, Any] = {"max_tokens": draw.randint(1, 4), "seed": draw.randrange(1000)}
    fields |= {"stream": True} if draw.random() < 0.3 else {}
    kind = draw.random()
    if kind < 0.45:
        return "/v1/completions", {"prompt": words, "n": draw.choice([1, 1, 1, 2])} | fields, 200
    if kind < 0.55:
        return "/v1/completions", {"prompt": words, "echo": True, "logprobs": 1, "max_tokens": 1}, 200
    if kind < 0.8:
        return "/v1/chat/completions", {"messages": [{"role": "user", "content": words}]} | fields, 200
    if kind < 0.9:
        return "/tokenize", {"prompt": words}, 200
    wrong: dict[str, Any] = draw.choice(
        [{"prompt": [3] * 500}, {"prompt": words, "temprature": 1}, {"prompt": words, "n": -1}]
    )
    return "/v1/completions", wrong, 400


def read_the_most(server: Command) -> None:
    """Let passes have all the tokens that they can have: the engine takes memory at the largest, for good."""
    prompts = [[20 + i + j for j in range(WINDOW - 4)] for i in range(16)]
    body = {"prompt": prompts, "echo": True, "logprobs": 20, "max_tokens": 4}
    for _ in range(4):
        assert request(server.port, "/v1/completions", key=server.key, body=body).status == 200


class Asker:
    """One client: it asks its own requests in turn, over and over, on connections that it renews."""

    def __init__(self, server: Command, number: int) -> None:
        self._server, self._turn = server, 0
        self._stream: socket.socket | None = None
        draw = random.Random(number)
        self._requests = [self._written(*short_request(draw)) for _ in range(KINDS)]

    def _written(self, path: str, fields: dict[str, Any], status: int) -> tuple[bytes, int]:
        body = json.dumps(fields).encode()
        headers = {"host": LOCAL, "x-api-key": self._server.key, "content-type": "application/json"}
        return head("POST", path, headers | {"content-length": str(len(body))}) + body, status

    def ask(self, n: int) -> None:
        """Send so many requests, one after the other, and check their statuses."""
        for _ in range(n):
            if self._stream is None:
                self._stream = connect(self._server.port)
                self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            content, status = self._requests[self._turn % KINDS]
            self._stream.sendall(content)
            response = read_response(self._stream)
            assert response.status == status, response.body
            self._turn += 1
            if self._turn % PER_CONNECTION == 0:
                self.leave()

    def leave(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def held(server: Command) -> dict[str, int]:
    """Return what a server holds that has nothing to do, its memory left out."""
    found = settled(server)
    assert server_errors(found) == []
    return {"reserved": reserved(found), "descriptors": descriptors(server), "threads": threads(server)}


def ask_together(server: Command, askers: list[Asker], n: int) -> None:
    """Let all clients ask at the same time, `n` requests together, and leave."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda asker: asker.ask(n // CLIENTS), askers))
    for asker in askers:
        asker.leave()


@pytest.mark.parametrize(
    ("warm", "requests"), [(400, 400), pytest.param(10_000, 90_000, marks=pytest.mark.full)]
)
def test_nothing_grows_over_many_short_requests(server: Command, warm: int, requests: int) -> None:
    linux()
    askers = [Asker(server, number) for number in range(CLIENTS)]
    start = held(server)
    assert start["reserved"] == 0
    read_the_most(server)
    ask_together(server, askers, warm)
    usual = held(server)
    assert usual | {"threads": 0} == start | {"threads": 0}, "threads are started when they are needed"
    began, warmed = time.monotonic(), resident(server)
    for _ in range(4):
        ask_together(server, askers, requests // 4)
        after, grown = held(server), resident(server) / warmed - 1
        rate = requests / 4 / (time.monotonic() - began)
        print(f"{rate:.0f} requests per second: {after}, {warmed >> 10:,} KiB {grown:+.2%}", flush=True)
        assert after == usual
        began = time.monotonic()
    if warm > 1000:  # before that, what is imported and learned late is still growing
        assert grown <= DRIFT
