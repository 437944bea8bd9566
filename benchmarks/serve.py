"""`pophood serve` over HTTP: one client and eight, streamed and not, beside `LM.stream` in this program.

GPT-2 small's and SmolLM2's shapes in Q8_0. Each request has its own prompt of 16 ids and gets 128 tokens.
Clients are threads of this program that only count what arrives, on connections that stay open. Tokens/s are
those of all clients from the first request to the last byte; the cost of a token is the time from the first
token to the last, divided. Bars: at most 0.3 ms per token above `LM.stream` for one client that streams;
eight clients that do not stream at least 3 times one.
Run: python benchmarks/serve.py [--rounds 5] [--threads 2] [--shapes smollm2] [--no-amx]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _amx import add_no_amx
from _models import gpt2_gguf, quantised_gguf, smollm2_gguf
from _timing import Work, interleaved, judged, paired_ratio, report, summary

import pophood

PROMPT, STEPS, CLIENTS = 16, 128, 8
SHAPES: dict[str, Callable[[], Path]] = {
    "gpt2": lambda: gpt2_gguf("Q8_0"),
    "smollm2": lambda: quantised_gguf(smollm2_gguf(), "Q8_0"),
}


class Server:
    """A running `pophood serve`, with a connection for each client."""

    def __init__(self, path: Path, threads: int) -> None:
        command = [sys.executable, "-m", "pophood", "serve", str(path), "--json", "--port", "0"]
        command += ["--threads", str(threads), "--context", "512"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        address = ("127.0.0.1", self.facts["port"])
        self.clients = [socket.create_connection(address) for _ in range(CLIENTS)]
        for client in self.clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._turn = 0

    def rate(self, clients: int, stream: bool) -> float:
        """Tokens/s of so many clients together."""
        began = time.perf_counter()
        self._ask(clients, stream)
        return clients * STEPS / (time.perf_counter() - began)

    def token_seconds(self) -> float:
        """Seconds per token of one client that streams, without the first."""
        (arrivals,) = self._ask(1, True)
        return (arrivals[-1] - arrivals[0]) / (STEPS - 1)

    def _ask(self, clients: int, stream: bool) -> list[list[float]]:
        """Send a request for each client; return when each one's tokens arrived."""
        self._turn += 1
        requests = [self._request(100 + 97 * i + self._turn, stream) for i in range(clients)]
        return list(self._pool.map(_exchange, self.clients, requests))

    def _request(self, first: int, stream: bool) -> bytes:
        fields = {"prompt": list(range(first, first + PROMPT)), "max_tokens": STEPS, "temperature": 0}
        body = json.dumps(fields | {"ignore_eos": True, "stream": stream}).encode()
        lines = [
            "POST /v1/completions HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self.facts['key']}",
        ]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body

    def end(self) -> None:
        """Stop the server."""
        for client in self.clients:
            client.close()
        self._pool.shutdown()
        os.kill(self.process.pid, signal.SIGINT)
        self.process.wait()

    def __del__(self) -> None:
        self.process.kill()  # a benchmark that was cut short leaves no server behind


def _exchange(client: socket.socket, request: bytes) -> list[float]:
    """Send a request and read its response; return the time of each piece with text."""
    client.sendall(request)
    arrivals: list[float] = []
    received = bytearray()
    while True:
        part = client.recv(1 << 16)
        now = time.perf_counter()
        assert part, bytes(received)
        received += part
        arrivals += [now] * part.count(b'"finish_reason":null')
        if _complete(received):
            assert received.startswith(b"HTTP/1.1 200"), bytes(received)
            return arrivals


def _complete(received: bytearray) -> bool:
    """Return whether a response has ended: by its last chunk, or by its length.

    >>> _complete(bytearray(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nX-Request-Id: a0\\r\\n\\r\\n"))
    False
    """
    head, end, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n") if end else ():
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return bool(end) and body.endswith(b"0\r\n\r\n")


def streamed_seconds(lm: pophood.LM) -> float:
    """Seconds per token of `LM.stream`, without the first."""
    first = 100 + time.monotonic_ns() % 1000  # another prompt each time: nothing is cached
    ids = list(range(first, first + PROMPT))
    run = lm.stream(ids, max_tokens=STEPS, temperature=0, stop_ids=())
    next(run)
    began = time.perf_counter()
    for _ in run:
        pass
    return (time.perf_counter() - began) / (STEPS - 1)


def compare(shape: str, rounds: int, threads: int) -> None:
    """Time one shape."""
    path = SHAPES[shape]()
    lm = pophood.load(path, threads=threads, context=512)
    server = Server(path, threads)
    works: dict[str, Work] = {
        "LM.stream, s per token": functools.partial(streamed_seconds, lm),
        "1 client streamed, s per token": server.token_seconds,
        "1 client": functools.partial(server.rate, 1, False),
        "1 client, streamed": functools.partial(server.rate, 1, True),
        "8 clients": functools.partial(server.rate, CLIENTS, False),
        "8 clients, streamed": functools.partial(server.rate, CLIENTS, True),
    }
    figures = interleaved(works, rounds)
    seconds = zip(figures["1 client streamed, s per token"], figures["LM.stream, s per token"], strict=True)
    overhead = summary([1000 * (served - alone) for served, alone in seconds])
    ratios = {
        f"{name} / 1 client": paired_ratio(figures, name, "1 client")
        for name in ("8 clients", "8 clients, streamed")
    }
    bars = {
        f"{shape} Q8_0, ms per token of one client above LM.stream": judged(overhead, 0.3, 0.15, most=True),
        f"{shape} Q8_0, 8 clients against 1": judged(ratios["8 clients / 1 client"], 3.0, 4.5),
    }
    facts = {name: server.facts[name] for name in ("isa", "weight_bytes", "precision", "kv")}
    server.end()
    report(f"{shape} Q8_0, served", "tokens/s", figures, bars=bars, ratios=ratios, threads=threads, **facts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the shapes that are asked for, or both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args(arguments)
    for shape in options.shapes:
        compare(shape, options.rounds, options.threads)


if __name__ == "__main__":
    main()
