"""Servers as sides of the benchmarks: `pophood serve`, and ik_llama.cpp's llama-server.

Clients are threads here, which only look at what arrives; each request has a connection of its own.
ik_llama.cpp's server is built as `_ik.py` says, with the target llama-server and -DLLAMA_BUILD_SERVER=ON.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _ik import ik_folder

START_SECONDS = 120.0
Fields = dict[str, Any]
Arrival = tuple[float, bytes]  # when a piece of a response arrived, and the piece


class Served:
    """A process that listens on a port."""

    def __init__(
        self, command: Sequence[str], port: int = 0, clients: int = 1, health: str = "/health"
    ) -> None:
        own = not port  # pophood chooses a port and prints its facts
        out = subprocess.PIPE if own else subprocess.DEVNULL
        self.process = subprocess.Popen(  # a server may leave a log where it starts
            command, stdout=out, stderr=None if own else out, text=True, cwd=tempfile.gettempdir()
        )
        self.facts: Fields = {"port": port, "key": ""}
        if own:
            assert self.process.stdout is not None
            self.facts = json.loads(self.process.stdout.readline())
        self.pool = ThreadPoolExecutor(clients)
        self._wait(health)

    def _wait(self, health: str) -> None:
        """Wait until the model is loaded."""
        end = time.monotonic() + START_SECONDS
        request = f"GET {health} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        while True:
            try:
                if self.exchange(request)[0][1].startswith(b"HTTP/1.1 200"):
                    return
            except ConnectionRefusedError:
                pass
            assert time.monotonic() < end and self.process.poll() is None, "the server did not start"
            time.sleep(0.1)

    def ask(self, route: str, fields: Sequence[Fields]) -> list[list[Arrival]]:
        """Send one request per client at the same time; return what each one received, and when."""
        requests = [self.request(route, one) for one in fields]
        return list(self.pool.map(self.exchange, requests))

    def exchange(self, request: bytes) -> list[Arrival]:
        """Send a request and read its response to the end."""
        arrivals: list[Arrival] = []
        received = bytearray()
        with socket.create_connection(("127.0.0.1", self.facts["port"])) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(request)
            while not complete(received):
                part = client.recv(1 << 16)
                assert part, bytes(received)
                arrivals.append((time.perf_counter(), part))
                received += part
        return arrivals

    def request(self, route: str, fields: Fields) -> bytes:
        """The bytes of a POST request."""
        body = json.dumps(fields).encode()
        lines = [f"POST {route} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.facts['key']}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body

    def end(self) -> None:
        """Stop the server."""
        self.pool.shutdown()
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def __del__(self) -> None:
        self.process.kill()  # a benchmark that was cut short leaves no server behind


def pophood_server(path: Path, threads: int, *, clients: int = 1, context: int = 512) -> Served:
    """`pophood serve` with a file."""
    command = [sys.executable, "-m", "pophood", "serve", str(path), "--json", "--port", "0"]
    return Served([*command, "--threads", str(threads), "--context", str(context)], clients=clients)


def ik_server(path: Path, threads: int, *, slots: int, window: int, repack: bool) -> Served | None:
    """ik_llama.cpp's llama-server with a slot per client, or None, with the reason printed."""
    folder = ik_folder()
    if folder is None:
        return None
    if not (folder / "llama-server").exists():
        print(f"ik_llama.cpp is left out: there is no llama-server in {folder}")
        return None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [str(folder / "llama-server"), "-m", str(path), "--port", str(port), "-t", str(threads)]
    command += ["-np", str(slots), "-c", str(slots * window), *(["-rtr"] if repack else [])]
    return Served(command, port, clients=slots)


def complete(received: bytearray) -> bool:
    """Return whether a response has ended: by its last chunk, or by its length.

    >>> complete(bytearray(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nX-Request-Id: a0\\r\\n\\r\\n"))
    False
    """
    head, end, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n") if end else ():
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return bool(end) and body.endswith(b"0\r\n\r\n")


def text_times(arrivals: Sequence[Arrival]) -> list[float]:
    """When each event with a token of a stream arrived."""
    return [when for when, part in arrivals for _ in range(part.count(b'"finish_reason":null'))]
