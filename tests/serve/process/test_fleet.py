"""Two models of one server: loaded, used and unloaded by name, by use, and 200 times over."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.needs import linux
from tests.processes import HANG_SECONDS
from tests.serve.command import Command, command
from tests.serve.counting import descriptors, figures, resident, server_errors
from tests.serve.wire import LOCAL, Response, connect, head, request
from tests.tiny import tiny_folder

DRIFT = 0.02
ROUNDS = [4, pytest.param(200, marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with two models, which differ."""
    home = tmp_path_factory.mktemp("fleet")
    tiny_folder(home / "models" / "one", "llama", n_positions=4096)
    tiny_folder(home / "models" / "two", "qwen2", n_positions=2048)
    return home


@pytest.fixture
def server(home: Path) -> Iterator[Command]:
    linux()
    with command(home / "models" / "one", home=home) as running:
        yield running


def post(server: Command, path: str, **body: Any) -> Response:
    return request(server.port, path, key=server.key, body=body)


def complete(server: Command, model: str | None, **fields: Any) -> Response:
    return post(server, "/v1/completions", model=model, prompt="the cat", max_tokens=4, seed=1, **fields)


def states(server: Command) -> dict[str, str]:
    data = request(server.port, key=server.key).json["data"]
    return {one["id"]: one["status"]["value"] for one in data}


def refused(response: Response) -> tuple[int, str | None]:
    return response.status, response.code


def children(server: Command) -> int:
    return len(processes.descendants(server.process.pid))


def until_said(server: Command, words: str) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not any(words in line for line in server.said) and time.monotonic() < end:
        time.sleep(0.01)
    assert any(words in line for line in server.said)


def test_a_second_model_comes_answers_and_goes(server: Command) -> None:
    assert states(server) == {"one": "loaded"}
    assert refused(complete(server, "two")) == (404, "model_not_found")
    assert post(server, "/models/load", model="two").json == {"success": True}
    assert states(server) == {"one": "loaded", "two": "loaded"}
    answers = [complete(server, name).json for name in ("one", "two", None)]
    assert [answer["model"] for answer in answers] == ["one", "two", "one"]
    assert len({answer["system_fingerprint"] for answer in answers}) == 2
    windows = [
        post(server, "/tokenize", model=name, prompt="a").json["max_model_len"] for name in ("one", "two")
    ]
    assert windows == [4096, 2048]
    assert children(server) == figures(server)["pophood_models_loaded"] == 2
    assert refused(post(server, "/models/load", model="two")) == (400, "model_loaded")
    assert post(server, "/models/unload", model="two").json == {"success": True}
    assert states(server) == {"one": "loaded", "two": "unloaded"}
    assert children(server) == 1
    assert refused(post(server, "/models/unload", model="two")) == (400, "model_not_loaded")
    again = complete(server, "two").json
    assert again["choices"] == answers[1]["choices"], "its next request brings it back"
    assert states(server)["two"] == "loaded"
    server.signal(signal.SIGINT)
    assert server.exit_code() == 130
    assert not processes.descendants()


@pytest.mark.parametrize("route", ["/models/load", "/models/unload"])
def test_only_names_of_the_list(server: Command, home: Path, route: str) -> None:
    for name in ("three", str(home / "models" / "two"), "../models/two", "gpt2", ""):
        assert refused(post(server, route, model=name)) == (404, "model_not_found")
    assert post(server, route).status == 400
    assert post(server, route, model="two", gpu=1).status == 400
    assert request(server.port, route, key=None, body={"model": "two"}).status == 401
    assert states(server) == {"one": "loaded"}


def test_the_one_that_was_used_longest_ago_makes_room(home: Path) -> None:
    linux()
    with command(home / "models" / "one", "--max-models", "1", home=home) as server:
        assert post(server, "/models/load", model="two").status == 200
        assert states(server) == {"one": "unloaded", "two": "loaded"}
        assert complete(server, "one").status == 200
        assert states(server) == {"one": "loaded", "two": "unloaded"}
        assert children(server) == 1


def test_a_model_that_computes_is_not_unloaded(home: Path) -> None:
    linux()
    with command(home / "models" / "one", "--max-models", "1", home=home) as server:
        body = json.dumps({"prompt": "a", "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
        headers = {"host": LOCAL, "x-api-key": server.key, "content-type": "application/json"}
        with connect(server.port) as stream:
            stream.sendall(
                head("POST", "/v1/completions", headers | {"content-length": str(len(body))}) + body
            )
            assert stream.recv(65536)
            assert refused(post(server, "/models/unload", model="one")) == (409, "model_busy")
            assert refused(post(server, "/models/load", model="two")) == (409, "models_busy")
        assert states(server) == {"one": "loaded"}


def test_an_idle_model_leaves_memory_and_comes_back(home: Path) -> None:
    linux()
    with command(home / "models" / "one", "--idle-unload", "1", home=home) as server:
        before = complete(server, "one").json["choices"]
        until_said(server, "one has left memory after 1 s without requests")
        assert (states(server), children(server)) == ({"one": "unloaded"}, 0)
        assert request(server.port, "/health").status == 200
        streamed = complete(server, "one", stream=True).body.decode()
        assert streamed.rstrip().endswith("data: [DONE]")
        assert complete(server, "one").json["choices"] == before


@pytest.mark.parametrize("rounds", ROUNDS)
def test_loading_using_and_unloading_leaves_nothing(server: Command, rounds: int) -> None:
    def one_round() -> None:
        for name in ("one", "two"):
            answer = complete(server, name)
            if answer.status == 404:
                assert post(server, "/models/load", model=name).status == 200
                answer = complete(server, name)
            assert answer.status == 200
        assert children(server) == 2
        for name in ("one", "two"):
            assert post(server, "/models/unload", model=name).status == 200
        assert children(server) == 0

    for _ in range(3):
        one_round()
    held, memory = descriptors(server), resident(server)
    for _ in range(rounds):
        one_round()
    assert descriptors(server) == held
    assert resident(server) <= (1 + DRIFT) * memory
    assert not server_errors(figures(server))
