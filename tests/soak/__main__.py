"""Send very many requests of every kind to `pophood serve` with a tiny model, and watch what it holds.

Eight clients ask, evenly spread over the minutes: a tenth of the requests, a look at the server with nothing
to do, the next tenth. Bars: resident memory of all its processes after the first and after the last tenth
within 2 %, as many descriptors after every tenth as after the first, no status that was not expected.
Run: make soak, or python -m tests.soak [--requests 100000] [--minutes 60] [--kinds n,stop] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pophood
from pophood.export.adapter_writers import write_adapter
from tests import processes
from tests.conftest import ROOT
from tests.export.adapters import random_adapter
from tests.serve.command import Command, command
from tests.serve.counting import reserved, server_errors, settled
from tests.serve.wire import LOCAL, connect, head, read_response, request
from tests.soak.kinds import KINDS, WINDOW, Kind
from tests.text.tool_templates import TOOL_TEMPLATES
from tests.tiny import tiny_folder

CLIENTS, TENTHS = 8, 10
PER_CONNECTION = 50  # requests, then a new connection
DRIFT = 0.02
ROUNDS = 12  # of 16 prompts that fill the window
TOLD = 20  # answers of a wrong status that are kept


class Client:
    """One client: it draws requests, asks one after the other, and counts what came back."""

    def __init__(self, server: Command, kinds: list[Kind], number: int) -> None:
        self._server, self._kinds, self._turn = server, kinds, 0
        self._draw = random.Random(number)
        self._stream: socket.socket | None = None
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def ask(self, n: int, seconds: float) -> None:
        """Ask `n` requests, evenly spread over so many seconds, and leave."""
        began = time.monotonic()
        for turn in range(n):
            time.sleep(max(0.0, began + seconds * turn / n - time.monotonic()))
            kind = self._draw.choices(self._kinds, [one.weight for one in self._kinds])[0]
            self.counts[kind.name] += 1
            content = written(self._server, kind, kind.make(self._draw))
            if kind.leaves:
                self._leave_at_once(content)
            else:
                self._ask(kind, content)
        self.leave()

    def _ask(self, kind: Kind, content: bytes) -> None:
        if self._stream is None:
            self._stream = connect(self._server.port)
            self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream.sendall(content)
        response = read_response(self._stream)
        broken = b'"error":{' in response.body and response.status == 200
        if response.status != kind.status or broken:
            self.wrong.append(
                f"{kind.name}: {response.status}: {response.body[:300].decode(errors='replace')}"
            )
        self._turn += 1
        if self._turn % PER_CONNECTION == 0 or response.headers.get("connection") == "close":
            self.leave()

    def _leave_at_once(self, content: bytes) -> None:
        """Send a request, or a part of it, and close the connection at some moment, at times by a reset."""
        draw = self._draw
        with connect(self._server.port) as stream:
            stream.sendall(content[: draw.randrange(len(content))] if draw.random() < 0.1 else content)
            time.sleep(draw.choice([0.0, 0.01, 0.1]) * draw.random())
            if draw.random() < 0.3:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def leave(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def written(server: Command, kind: Kind, fields: Any) -> bytes:
    """Return a request as bytes."""
    headers = {"host": LOCAL, "x-api-key": server.key} | dict(kind.headers or {})
    if fields is None:
        return head("GET", kind.path, headers)
    body = json.dumps(fields).encode()
    headers |= {"content-type": "application/json", "content-length": str(len(body))}
    return head("POST", kind.path, headers) + body


def known(server: Command) -> tuple[list[Kind], list[str]]:
    """Return the kinds that the server knows, and the names of the others."""
    found, left_out = [], []
    for kind in KINDS:
        if kind.probed:
            with connect(server.port) as stream:
                stream.sendall(written(server, kind, kind.make(random.Random(1))))
                if read_response(stream).status != kind.status:
                    left_out.append(kind.name)
                    continue
        found.append(kind)
    return found, left_out


def look(server: Command) -> dict[str, Any]:
    """Return what a server without requests holds, in all of its processes."""
    figures = settled(server)
    time.sleep(0.5)  # the sockets of connections that were closed last
    ids = [server.process.pid, *(one.pid for one in processes.descendants(server.process.pid))]
    resident = [_status(pid, "RssAnon") for pid in ids]
    return {
        "reserved_blocks": reserved(figures),
        "errors": server_errors(figures),
        "processes": len(ids),
        "descriptors": sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in ids),
        "threads": sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in ids),
        "resident": sum(resident),
        "resident_of_each": resident,
    }


def _status(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:")) << 10


def soak(server: Command, requests: int, minutes: float, names: list[str]) -> dict[str, Any]:
    """Send the requests, of the kinds that are named if any is; return what was counted and held."""
    read_the_most(server)
    kinds, left_out = known(server)
    kinds = [kind for kind in kinds if not names or kind.name in names]
    clients = [Client(server, kinds, number) for number in range(CLIENTS)]
    print(f"{len(kinds)} kinds of requests; left out: {', '.join(left_out) or 'none'}", flush=True)
    looks, began = [], time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool, telling(clients, requests, began):
        for tenth in range(1, TENTHS + 1):
            share, seconds = requests // TENTHS // CLIENTS, 60 * minutes / TENTHS
            list(pool.map(lambda one, n=share, s=seconds: one.ask(n, s), clients))
            looks.append({"seconds": round(time.monotonic() - began, 1)} | look(server))
            print(f"{tenth} of {TENTHS}: {json.dumps(looks[-1])}", flush=True)
    counts: Counter[str] = sum((one.counts for one in clients), Counter())
    first, last = looks[0], looks[-1]
    return {
        "requests": counts.total(),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "counts": dict(counts),
        "left_out": left_out,
        "looks": looks,
        "memory_growth": round(last["resident"] / first["resident"] - 1, 5),
        "descriptors_flat": all(one["descriptors"] == first["descriptors"] for one in looks),
        "wrong": [words for one in clients for words in one.wrong],
        "log": server.said[:TOLD],
    }


@contextmanager
def telling(clients: list[Client], requests: int, began: float) -> Iterator[None]:
    """Print every ten seconds how many requests were sent."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(10):
            done, wrong = (sum(map(count, clients)) for count in (sent, failures))
            spent = (time.monotonic() - began) / 60
            print(f"{done:,} of {requests:,}, {spent:.1f} min, {wrong} wrong", flush=True)

    def sent(one: Client) -> int:
        return one.counts.total()

    def failures(one: Client) -> int:
        return len(one.wrong)

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def read_the_most(server: Command) -> None:
    """Fill every block of keys and values, and let passes have all the tokens that they can have.

    The engine takes that memory when it is first needed, and keeps it.
    """
    draw = random.Random(0)
    for _ in range(ROUNDS):
        prompts = [[draw.randrange(20, 200) for _ in range(WINDOW - 4)] for _ in range(16)]
        body = {"prompt": prompts, "echo": True, "logprobs": 20, "max_tokens": 4}
        assert request(server.port, "/v1/completions", key=server.key, body=body).status == 200


def main() -> int:
    """Run it; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=60.0, help="the requests are spread over so many")
    parser.add_argument("--kinds", default="", help="comma-separated names of tests/soak/kinds.py; all")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak.json")
    chosen = parser.parse_args()
    processes.adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        model = tiny_folder(home / "tiny", "qwen2", n_positions=WINDOW)
        words = model / "tokenizer_config.json"
        template = {"chat_template": TOOL_TEMPLATES["hermes"]}
        words.write_text(json.dumps(json.loads(words.read_text("utf-8")) | template), encoding="utf-8")
        config = pophood.load(model).config
        write_adapter(home / "one", random_adapter(config), config)
        options = ("--parallel", "8", "--memory", "4M", "--adapter", f"one={home / 'one'}")
        with command(model, *options, home=home) as server:
            result = soak(
                server, chosen.requests, chosen.minutes, list(filter(None, chosen.kinds.split(",")))
            )
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    missed = [
        *(["memory"] if result["memory_growth"] > DRIFT else []),
        *([] if result["descriptors_flat"] else ["descriptors"]),
        *(["statuses"] if result["wrong"] else []),
        *(["5xx"] if any(one["errors"] for one in result["looks"]) else []),
    ]
    print(f"memory {result['memory_growth']:+.2%}; missed: {', '.join(missed) or 'none'}; {chosen.out}")
    for words in dict.fromkeys(result["wrong"]):
        print(words)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
