"""Clients that leave, and those that send too much: a real server goes on for others and loses nothing."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.needs import linux
from tests.serve.command import Command, command
from tests.serve.counting import Peak, descriptors, reserved, server_errors, settled
from tests.serve.hosts import REFUSED_HOSTS
from tests.serve.wire import LOCAL, connect, head, read_response, request, unchunked
from tests.tiny import tiny_folder

WINDOW = 60_000  # tokens: nobody waits for an answer that fills it


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("drops")
    model = tiny_folder(folder / "tiny", "llama", n_positions=WINDOW)
    with command(model, "--parallel", "4", "--memory", "256M", home=folder) as running:
        yield running


def posted(server: Command, **fields: Any) -> bytes:
    body = json.dumps({"temperature": 0.9, "ignore_eos": True} | fields).encode()
    headers = {"host": LOCAL, "x-api-key": server.key, "content-type": "application/json"}
    return head("POST", "/v1/completions", headers | {"content-length": str(len(body))}) + body


def text_of(server: Command, seed: int, *, stream: bool) -> str:
    """Return the text of one of the requests that stay."""
    fields = {"prompt": list(range(30 + seed, 60 + seed)), "max_tokens": 60, "seed": seed, "stream": stream}
    with connect(server.port) as client:
        client.sendall(posted(server, **fields))
        response = read_response(client)
    assert response.status == 200
    if not stream:
        return str(response.json["choices"][0]["text"])
    lines = [line for line in response.body.decode().splitlines() if line.startswith("data: {")]
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines]
    return "".join(choice["text"] for piece in pieces for choice in piece["choices"])


def leave(server: Command, seed: int) -> None:
    """Begin a request that would take very long, and leave at a random moment."""
    draw = random.Random(seed)
    prompt = [20 + draw.randrange(400) for _ in range(draw.choice([3, 50, 8000]))]
    fields = {
        "prompt": prompt,
        "max_tokens": 40_000,
        "stream": draw.random() < 0.5,
        "n": draw.choice([1, 1, 2]),
    }
    with connect(server.port) as client:
        content = posted(server, **fields)
        client.sendall(content[: draw.randrange(len(content))] if draw.random() < 0.1 else content)
        time.sleep(draw.choice([0.0, 0.01, 0.1, 0.5]) * draw.random())
        if draw.random() < 0.3:  # a reset instead of an end
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_a_hundred_that_leave_change_nothing_for_those_that_stay(server: Command) -> None:
    linux()
    expected = {
        (seed, stream): text_of(server, seed, stream=stream) for seed in range(3) for stream in (True, False)
    }
    assert [expected[seed, True] for seed in range(3)] == [expected[seed, False] for seed in range(3)]
    before, open_before = settled(server), descriptors(server)
    over = threading.Event()
    seen: list[tuple[tuple[int, bool], str]] = []

    def stay() -> None:
        draw = random.Random(9)
        while not over.is_set():
            which = draw.randrange(3), draw.random() < 0.5
            seen.append((which, text_of(server, which[0], stream=which[1])))

    with ThreadPoolExecutor(8) as pool:
        staying = pool.submit(stay)
        list(pool.map(lambda seed: leave(server, seed), range(100)))
        over.set()
        staying.result()
    after = settled(server)
    assert all(text == expected[which] for which, text in seen)
    assert len(seen) > 0
    assert after["pophood_cancelled_total"] > before["pophood_cancelled_total"]
    assert after["pophood_kv_blocks_used"] <= after["pophood_kv_blocks_total"]
    assert reserved(after) == 0 and descriptors(server) == open_before
    assert server_errors(after) == []


@pytest.mark.parametrize("requests", [6, pytest.param(200, marks=pytest.mark.full)])
def test_32_clients_of_which_half_leave(server: Command, requests: int) -> None:
    linux()
    open_before = (settled(server), descriptors(server))[1]

    def client(number: int) -> None:
        draw = random.Random(1000 + number)
        for turn in range(requests):
            if draw.random() < 0.5:
                leave(server, 10_000 * number + turn)
                continue
            with connect(server.port) as stream:
                fields = {
                    "prompt": [20 + number],
                    "max_tokens": draw.randint(1, 20),
                    "stream": draw.random() < 0.5,
                }
                stream.sendall(posted(server, **fields))
                assert read_response(stream).status == 200

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(client, range(32)))
    after = settled(server)
    assert reserved(after) == 0 and descriptors(server) == open_before
    assert server_errors(after) == []
    assert text_of(server, 1, stream=True) == text_of(server, 1, stream=False)


def test_every_route_refuses_every_foreign_host(server: Command) -> None:
    routes = request(server.port, "/openapi.json", key=server.key).json["paths"]
    targets = [
        (path.replace("{model}", "tiny"), method.upper()) for path in routes for method in routes[path]
    ]
    assert len(targets) > 10
    print(f"{len(REFUSED_HOSTS)} values of Host at {len(targets) + 2} routes")
    for host in REFUSED_HOSTS:
        with_port = host.replace("PORT", str(server.port))
        for path, method in [*targets, ("/", "GET"), ("/openapi.json", "GET")]:
            body: dict[str, str] | None = {} if method == "POST" else None
            response = request(server.port, path, key=server.key, body=body, headers={"host": with_port})
            assert response.status == 403, (path, host)


def test_bodies_that_are_huge_deep_or_slow_cost_little_memory(server: Command) -> None:
    linux()
    assert text_of(server, 0, stream=True)
    peak = Peak(server)
    slow = [connect(server.port) for _ in range(100)]
    try:
        for stream in slow:
            stream.sendall(posted(server, prompt=[20])[:-5])
        for _ in range(2):
            assert large(server, 100_000_000) == 413
        deep = b"[" * 10_000 + b"]" * 10_000
        many = b'{"messages":[' + b",".join([b"{}"] * 1_000_000) + b"]}"
        for body, status in (
            (deep, 400),
            (many, 400),
            (b"[" * 4_000_000, 400),
            (b'{"prompt":"\\ud800"', 400),
        ):
            assert request(server.port, "/v1/chat/completions", key=server.key, body=body).status == status
        assert text_of(server, 0, stream=True)
        grown = peak.grown
    finally:
        for stream in slow:
            stream.close()
    print(f"the peak of memory grew by {grown >> 10:,} KiB")
    assert grown <= 32 << 20
    assert server_errors(settled(server)) == []


def large(server: Command, size: int) -> int:
    """Send a body without announcing its length, and return the status."""
    headers = {"host": LOCAL, "x-api-key": server.key, "content-type": "application/json"}
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with connect(server.port) as stream:
        stream.sendall(head("POST", "/v1/completions", headers | {"transfer-encoding": "chunked"}))
        for _ in range(size >> 20):
            stream.sendall(chunk)
        stream.sendall(b"0\r\n\r\n")
        return read_response(stream).status


def test_a_text_that_came_in_chunks_is_whole() -> None:
    assert unchunked(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n") == b"abc"
