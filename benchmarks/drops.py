"""Connections dropped at random moments: how long `pophood serve` still computes for a client that has left.

SmolLM2, two clients whose answers are streamed throughout, and 100 others that leave while they wait, while
their prompt of 1,900 ids is read, or while their answer is written, streamed or not. The time runs from the
close of the connection until /metrics counts one request less, asked every two milliseconds; it ends with the
pass over the weights that is under way, in which the others get their next token. Bars: 250 ms at most; the
texts of the two that stayed are those of the same requests alone.
Run: python benchmarks/drops.py [--drops 100] [--threads 2]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from _models import smollm2_gguf
from _timing import judged, report, summary

STAYING, TOGETHER = 2, 3
COMPARED = 400  # tokens of each text that is compared
LONG_PROMPT = 1_900
# What a client that leaves asks for, and the seconds after which it does, at most.
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "waiting": ({"n": TOGETHER, "prompt": 8}, 0.2),  # there is no room for three beside two
    "reading": ({"prompt": LONG_PROMPT}, 0.6),
    "writing": ({"prompt": 8}, 0.6),
}
GAUGE = re.compile(rb"^pophood_requests_(?:running|waiting) (\d+)$", re.MULTILINE)


class Server:
    """A running server, and the number of its requests."""

    def __init__(self, threads: int) -> None:
        command = [sys.executable, "-m", "pophood", "serve", str(smollm2_gguf()), "--json", "--port", "0"]
        command += ["--threads", str(threads), "--parallel", str(TOGETHER)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        self._metrics = http.client.HTTPConnection("127.0.0.1", self.facts["port"])

    def __del__(self) -> None:
        self.process.kill()

    def requests(self) -> int:
        """Return the number of requests that are computed or wait."""
        self._metrics.request("GET", "/metrics", headers={"x-api-key": self.facts["key"]})
        return sum(map(int, GAUGE.findall(self._metrics.getresponse().read())))

    def wait_for(self, number: int) -> float:
        """Wait until there are so many requests, and return the time."""
        while self.requests() != number:
            time.sleep(0.002)
        return time.perf_counter()

    def ask(self, fields: dict[str, Any]) -> socket.socket:
        """Send a request on a connection of its own."""
        body = json.dumps({"temperature": 0.8, "ignore_eos": True} | fields).encode()
        lines = ["POST /v1/completions HTTP/1.1", "Host: 127.0.0.1", f"x-api-key: {self.facts['key']}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        client = socket.create_connection(("127.0.0.1", self.facts["port"]))
        client.sendall("\r\n".join(lines).encode() + body)
        return client


class Staying:
    """A client that reads its stream all the time: its text, and when each piece arrived."""

    def __init__(self, server: Server, number: int) -> None:
        prompt = list(range(100 + 50 * number, 130 + 50 * number))
        fields = {"prompt": prompt, "seed": number, "stream": True, "max_tokens": -1}
        self._client = server.ask(fields)
        self.received, self.arrivals = b"", list[float]()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while part := self._client.recv(1 << 16):
            self.received += part
            self.arrivals.append(time.perf_counter())

    @property
    def texts(self) -> list[str]:
        """The texts of its pieces."""
        lines = [line for line in self.received.split(b"\n") if line.startswith(b"data: {")]
        pieces = [json.loads(line[6:]) for line in lines[:-1]]
        return [choice["text"] for piece in pieces for choice in piece["choices"]]

    def leave(self) -> None:
        self._client.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def drop(server: Server, kind: str, stream: bool, draw: random.Random) -> float:
    """Begin a request, leave at a random moment, and return the milliseconds until nothing is computed."""
    fields, most = KINDS[kind]
    prompt = [draw.randrange(1000, 20_000) for _ in range(fields["prompt"])]
    client = server.ask(fields | {"prompt": prompt, "stream": stream, "max_tokens": 4_000})
    server.wait_for(STAYING + 1)
    time.sleep(draw.random() * most)
    if draw.random() < 0.3:  # a reset instead of an end
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    began = time.perf_counter()
    client.close()
    return 1e3 * (server.wait_for(STAYING) - began)


def alone(server: Server, number: int) -> list[str]:
    """Return the first texts of a client that stays, with nobody beside it."""
    staying = Staying(server, number)
    while len(staying.texts) < COMPARED:
        time.sleep(0.1)
    staying.leave()
    server.wait_for(0)
    return staying.texts[:COMPARED]


def main(arguments: Sequence[str] | None = None) -> None:
    """Drop connections, compare the texts of those that stay, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--drops", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    server, draw = Server(options.threads), random.Random(7)
    wanted = [alone(server, number) for number in range(STAYING)]
    staying = [Staying(server, number) for number in range(STAYING)]
    server.wait_for(STAYING)
    figures: dict[str, list[float]] = {}
    for i in range(options.drops):
        kind, stream = list(KINDS)[i % len(KINDS)], draw.random() < 0.5
        figures.setdefault(f"{kind}, {'streamed' if stream else 'not streamed'}", []).append(
            drop(server, kind, stream, draw)
        )
    while min(len(one.texts) for one in staying) < COMPARED:
        time.sleep(0.1)
    same = all(one.texts[:COMPARED] == texts for one, texts in zip(staying, wanted, strict=True))
    gaps = [1e3 * (b - a) for one in staying for a, b in zip(one.arrivals, one.arrivals[1:], strict=False)]
    figures["between two tokens of one that stays"] = gaps
    dropped = sorted(value for name, values in figures.items() if "stay" not in name for value in values)
    steps = {
        f"{share:.0%}": round(dropped[int(share * (len(dropped) - 1))], 1) for share in (0.5, 0.9, 0.95, 1)
    }
    bars = {"the longest of all, ms": judged(summary([dropped[-1]]), 250, 100, most=True)}
    report(
        "connections dropped at random moments", "ms until computing ends", figures,
        bars=bars, distribution=steps, drops=len(dropped), texts_unchanged=same, threads=options.threads,
    )  # fmt: skip
    assert same


if __name__ == "__main__":
    main()
