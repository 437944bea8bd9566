"""`pophood serve` whose model's process crashes under load, is killed, or is interrupted while it loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import processes
from tests.needs import linux
from tests.processes import HANG_SECONDS
from tests.serve.command import Command, command
from tests.serve.counting import descriptors, figures, server_errors
from tests.serve.wire import LOCAL, connect, head, request, unchunked
from tests.tiny import tiny_folder

BACK = 5.0  # seconds until it computes again
CLIENTS = 4
CRASHES = [3, pytest.param(20, marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("crash") / "tiny", "llama", n_positions=4096)


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[Command]:
    linux()
    with command(model, home=tmp_path) as running:
        yield running


def child_of(server: Command) -> int:
    """Return the number of the model's process, which is the only child."""
    (child,) = processes.descendants(server.process.pid)
    return child.pid


class Clients:
    """Clients that ask all the time, streams and whole answers in turn. `ends` counts how answers ended."""

    def __init__(self, server: Command) -> None:
        self.ends: Counter[str] = Counter()
        self._server, self._done = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        stream = number % 2 == 0
        while not self._done.is_set():
            fields = {"prompt": [5 + number, 6, 7], "max_tokens": 400, "ignore_eos": True, "stream": stream}
            self.ends[self._end_of(fields)] += 1
            stream = not stream

    def _end_of(self, fields: dict[str, object]) -> str:
        answer = request(self._server.port, "/v1/completions", key=self._server.key, body=fields)
        if answer.status != 200:
            assert answer.headers.get("retry-after") == "1"
            return str(answer.status)
        last = answer.body.decode().strip().splitlines()[-1]
        if not fields["stream"] or last == "data: [DONE]":
            return "whole"
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_dead"
        return "error event"


@pytest.mark.parametrize("crashes", CRASHES)
def test_it_is_back_within_five_seconds_and_nothing_is_left_behind(server: Command, crashes: int) -> None:
    asked = {"prompt": "the cat", "max_tokens": 5, "seed": 1}

    def answer() -> bytes | None:
        found = request(server.port, "/v1/completions", key=server.key, body=asked)
        return found.body if found.status == 200 else None

    def choices(body: bytes | None) -> object:
        return body and json.loads(body)["choices"]

    before, held = choices(answer()), descriptors(server)
    seconds = []
    with Clients(server) as clients:
        for _ in range(crashes):
            while figures(server)["pophood_requests_running"] == 0:
                time.sleep(0.01)
            child = child_of(server)
            os.kill(child, signal.SIGSEGV)
            began = time.monotonic()
            while request(server.port, "/health").status == 200 and time.monotonic() - began < BACK:
                time.sleep(0.001)
            while (again := answer()) is None and time.monotonic() - began < HANG_SECONDS:
                time.sleep(0.01)
            seconds.append(time.monotonic() - began)
            assert choices(again) == before
            assert child_of(server) != child
    found = figures(server)
    assert max(seconds) < BACK, seconds
    assert clients.ends.keys() <= {"whole", "error event", "503"}, clients.ends
    assert clients.ends["error event"] > 0
    assert clients.ends["503"] > 0
    assert all("status=503" in name for name in server_errors(found))
    assert (found["pophood_worker_restarts_total"], found["pophood_up"]) == (crashes, 1)
    assert sum("was ended by SIGSEGV: starting it again" in line for line in server.said) == crashes
    assert descriptors(server) == held
    server.signal(signal.SIGINT)
    assert server.exit_code() == 130
    assert not processes.descendants()


def test_health_and_metrics_say_that_it_starts(server: Command) -> None:
    child = child_of(server)
    os.kill(child, signal.SIGKILL)
    end = time.monotonic() + HANG_SECONDS
    while (health := request(server.port, "/health")).status == 200 and time.monotonic() < end:
        time.sleep(0.001)
    assert (health.status, health.json["status"]) == (503, "starting")
    assert figures(server)["pophood_up"] in (0, 1)  # it may be back already
    while request(server.port, "/health").status == 503 and time.monotonic() < end:
        time.sleep(0.01)
    assert request(server.port, "/health").json == {"status": "ok"}


@pytest.mark.parametrize("busy", [False, True])
def test_a_parent_that_is_killed_leaves_no_child(server: Command, busy: bool) -> None:
    child = child_of(server)
    with connect(server.port) as stream:
        if busy:
            body = json.dumps({"prompt": [5 + n % 500 for n in range(4000)], "max_tokens": 50}).encode()
            headers = {"host": LOCAL, "x-api-key": server.key, "content-type": "application/json"}
            stream.sendall(head("POST", "/v1/completions", headers | {"content-length": str(len(body))}))
            stream.sendall(body)
            end = time.monotonic() + HANG_SECONDS
            while figures(server)["pophood_requests_running"] == 0 and time.monotonic() < end:
                time.sleep(0.001)
        server.process.kill()
        began = time.monotonic()
        while processes.descendants() and time.monotonic() - began < HANG_SECONDS:
            time.sleep(0.01)
    assert not Path(f"/proc/{child}/maps").exists() or not Path(f"/proc/{child}/maps").read_text()


def test_ctrl_c_while_it_loads_ends_both(model: Path, tmp_path: Path) -> None:
    linux()
    words = [sys.executable, "-m", "pophood", "serve", str(model), "--port", "0"]
    settings = {**os.environ, "POPHOOD_HOME": str(tmp_path), "POPHOOD_OFFLINE": "1"}
    with processes.started(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings) as process:
        end = time.monotonic() + HANG_SECONDS
        stopped = None
        while stopped is None and time.monotonic() < end:
            for one in processes.descendants(process.pid):
                if "serve.process.child" in one.command:
                    os.kill(one.pid, signal.SIGSTOP)  # so that it cannot be ready before the signal
                    stopped = one.pid
        time.sleep(0.3)  # the parent reads the tokenizer, then it waits
        processes.wait_until_asleep(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        out, said = process.communicate(timeout=HANG_SECONDS)
        assert (process.returncode, out) == (130, "")
        assert said.strip() == f"stopped while loading {model}"
        assert not processes.descendants()


def test_a_signal_to_the_whole_group_drains_as_one_to_the_server_does(server: Command) -> None:
    body = json.dumps({"prompt": "the cat", "max_tokens": 300, "stream": True, "ignore_eos": True}).encode()
    headers = {"host": LOCAL, "x-api-key": server.key, "content-type": "application/json"}
    with connect(server.port) as stream:
        whole = head("POST", "/v1/completions", headers | {"content-length": str(len(body))}) + body
        stream.sendall(whole)
        received = stream.recv(65536)
        os.killpg(server.process.pid, signal.SIGTERM)
        with suppress(ConnectionError):
            while part := stream.recv(65536):
                received += part
    assert server.exit_code() == 143
    text = unchunked(received.partition(b"\r\n\r\n")[2])
    assert text.rstrip().endswith(b"data: [DONE]")
    assert not processes.descendants()
