"""Answers from events made by hand: order, failures, silence, clients that leave, a full queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pophood.generate import Timings
from pophood.openai.model import ServedModel
from pophood.serve.app import build_app
from pophood.serve.client import EngineClient
from pophood.serve.messages import (
    Begun,
    Cancel,
    Ended,
    Event,
    Failed,
    FailureKind,
    Message,
    PromptRead,
    Submit,
    Tokens,
)
from tests.processes import HANG_SECONDS
from tests.serve.protocol.reader import read_stream
from tests.serve.protocol.service import Asking, Service, Told
from tests.serve.records import token

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TALK = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


@dataclass
class Played:
    """The app before a worker that a test plays."""

    served: ServedModel
    settings: dict[str, Any] = field(default_factory=dict)
    posted: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = EngineClient(self.posted.append)
        self.app: Any = build_app(self.client, self.served, **self.settings)

    def begin(self, path: str, body: dict[str, Any]) -> tuple[Asking, asyncio.Future[None]]:
        asking = Asking("POST", path, json.dumps(body).encode())
        return asking, asyncio.ensure_future(self.app(asking.scope, asking.receive, asking.send))

    async def submitted(self, n: int = 1) -> list[Submit]:
        """Wait until n requests have been submitted."""
        while len(found := [one for one in self.posted if isinstance(one, Submit)]) < n:
            await asyncio.sleep(0.001)
        return found

    def say(self, *events: Event) -> None:
        self.client.receive(events)

    @property
    def cancelled(self) -> list[int]:
        return [one.id for one in self.posted if isinstance(one, Cancel)]


Play = Callable[[Played], Awaitable[None]]


@pytest.fixture
def played(service: Service) -> Callable[..., None]:
    """Return a function that runs a test's coroutine with a worker that it plays."""

    def run(play: Play, **settings: Any) -> None:
        async def all_of_it() -> None:
            await asyncio.wait_for(play(Played(service.served, settings)), HANG_SECONDS)

        asyncio.run(all_of_it())

    return run


async def wrote(asking: Asking, n: int) -> None:
    """Wait until a response has been written to n times."""
    while len(asking.told.writes) < n:
        asking.wrote.clear()
        await asking.wrote.wait()


def read(told: Told, *, size: int = 1, include_usage: bool = False, chat: bool = True) -> Any:
    return read_stream(told.body, size=size, include_usage=include_usage, chat=chat)


def test_the_roles_leave_before_anything_is_computed(played: Any) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": True, "n": 3})
        (one,) = await scene.submitted()
        await wrote(asking, 1)  # though the worker has said nothing
        assert asking.told.status == 200
        assert asking.told.body.count(b'"role":"assistant"') == 3
        scene.say(Begun(one.id, 0, 9, 1), Tokens(one.id, tuple(token(5, "a", sample=i) for i in range(3))))
        await wrote(asking, 2)
        ends = tuple(token(6, "b", sample=i, finish="length") for i in (2, 0, 1))
        scene.say(Tokens(one.id, ends), Ended(one.id, dict.fromkeys(range(3), "length"), Timings()))
        await call
        stream = read(asking.told, size=3)
        assert [choice.text for choice in stream.choices] == ["ab"] * 3

    played(play)


def test_the_last_end_waits_for_the_seconds_of_all(played: Any) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": True, "n": 2})
        (one,) = await scene.submitted()
        scene.say(Begun(one.id, 0, 9, 1), Tokens(one.id, (token(5, "a", sample=1, finish="stop"),)))
        await wrote(asking, 1)
        assert asking.told.body.count(b'"finish_reason":"stop"') == 1
        scene.say(Tokens(one.id, (token(5, "a", sample=0, finish="stop_string"),)))
        await asyncio.sleep(0.01)
        assert asking.told.body.count(b'"finish_reason":"stop"') == 1
        scene.say(Ended(one.id, {0: "stop_string", 1: "stop"}, Timings(1.0, 10, 2.0, 4)))
        await call
        timings = read(asking.told, size=2).details["timings"]
        assert (timings["prompt_ms"], timings["prompt_per_second"]) == (1000.0, 10.0)
        assert (timings["predicted_ms"], timings["predicted_per_second"]) == (2000.0, 2.0)

    played(play)


FAILURES: list[tuple[FailureKind, int, str | None]] = [
    ("overflow", 400, "context_length_exceeded"),
    ("invalid", 400, None),
    ("full", 429, "queue_full"),
    ("engine", 500, "engine_error"),
    ("internal", 500, "internal_error"),
    ("stopping", 503, "server_stopping"),
    ("dead", 503, "engine_dead"),
]


@pytest.mark.parametrize(("kind", "status", "code"), FAILURES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_a_status(
    played: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: FailureKind,
    status: int,
    code: str | None,
    stream: bool,
) -> None:
    monkeypatch.setattr("pophood.serve.protocol.answering.PATIENCE", HANG_SECONDS)

    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": stream})
        (one,) = await scene.submitted()
        scene.say(Failed(one.id, kind, "the reason", 300, 256))
        await call
        assert asking.told.status == status
        assert asking.told.error["code"] == code
        if status in (429, 503):
            assert asking.told.headers["retry-after"] == "1"
            assert "x-should-retry" not in asking.told.headers
        else:
            assert asking.told.headers["x-should-retry"] == "false"
        if kind == "overflow":
            assert (asking.told.error["n_prompt_tokens"], asking.told.error["n_ctx"]) == (300, 256)
        assert scene.client.open_requests == 0

    played(play)


@pytest.mark.parametrize(("kind", "status", "code"), FAILURES[3:])
def test_after_the_first_byte_a_failure_is_an_event(
    played: Any, kind: FailureKind, status: int, code: str | None
) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": True, "stream_options": {"include_usage": True}})
        (one,) = await scene.submitted()
        scene.say(Begun(one.id, 0, 9, 1), Tokens(one.id, (token(5, "a"),)))
        await wrote(asking, 1)
        scene.say(Failed(one.id, kind, "the reason"))
        await call
        assert (asking.told.status, asking.told.ended) == (200, True)
        stream = read(asking.told, include_usage=True)
        assert (stream.error["code"], stream.error["message"]) == (code, "the reason")
        assert stream.choices[0].text == "a"

    played(play)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["waiting", "reading", "writing"])
def test_a_client_that_leaves_is_noticed_at_once(played: Any, when: str, stream: bool) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": stream})
        (one,) = await scene.submitted()
        if when != "waiting":
            scene.say(Begun(one.id, 0, 9, 1))
        if when == "writing":
            scene.say(Tokens(one.id, (token(5, "a"),)))
        await asyncio.sleep(0.05 if stream else 0)
        assert scene.cancelled == []
        asking.leave()
        for _ in range(5):  # turns of the loop
            await asyncio.sleep(0)
        assert scene.cancelled == [one.id]
        await call
        assert not asking.told.ended
        assert scene.client.open_requests == 0
        scene.say(Tokens(one.id, (token(5, "late"),)))

    played(play)


def test_when_many_prompts_lose_their_client_all_are_cancelled(played: Any) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(TEXT, {"prompt": [[1]] * 40})
        some = await scene.submitted(16)
        await asyncio.sleep(0.01)
        assert len(some) == 16, "the others take no place in the queue"
        scene.say(Begun(some[3].id, 0, 1, 1), Ended(some[3].id, {0: "stop"}, Timings()))
        await scene.submitted(17)
        asking.leave()
        await call
        ids = [one.id for one in await scene.submitted(17)]
        assert sorted(scene.cancelled) == sorted(set(ids) - {some[3].id})

    played(play)


def test_one_failure_ends_all_prompts_of_a_request(played: Any) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(TEXT, {"prompt": [[1]] * 3})
        one, two, three = await scene.submitted(3)
        scene.say(Failed(two.id, "engine", "a NaN"))
        await call
        assert asking.told.status == 500
        assert sorted(scene.cancelled) == [one.id, three.id]

    played(play)


def test_a_silent_stream_is_kept_open(played: Any) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": True})
        (one,) = await scene.submitted()
        scene.say(Begun(one.id, 0, 900, 1))
        await wrote(asking, 1)
        for read_so_far in range(100, 900, 100):  # reading alone writes nothing
            scene.say(PromptRead(one.id, read_so_far, 900))
            await asyncio.sleep(0.02)
        assert asking.told.body.count(b": keep-alive\n\n") >= 2
        scene.say(Tokens(one.id, (token(5, "a", finish="stop"),)), Ended(one.id, {0: "stop"}, Timings()))
        await call
        assert read(asking.told).comments >= 2

    played(play, silence=0.05)


def test_progress_is_told_to_those_who_ask(played: Any) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": True, "return_progress": True})
        (one,) = await scene.submitted()
        scene.say(Begun(one.id, 3, 9, 1), PromptRead(one.id, 5, 9))
        await wrote(asking, 1)
        scene.say(PromptRead(one.id, 9, 9), Tokens(one.id, (token(5, "a", finish="stop"),)))
        scene.say(Ended(one.id, {0: "stop"}, Timings()))
        await call
        progress = read(asking.told).progress
        total = len(one.prompt)
        assert [(p["processed"], p["total"], p["cache"]) for p in progress] == [(5, total, 3), (9, total, 3)]
        assert all(type(p["time_ms"]) is int for p in progress)

    played(play)


def test_a_full_server_says_when_to_come_back(played: Any) -> None:
    async def play(scene: Played) -> None:
        first, second = scene.begin(CHAT, TALK), scene.begin(CHAT, TALK)
        await scene.submitted(2)
        asking, call = scene.begin(CHAT, TALK | {"stream": True})
        await call
        assert (asking.told.status, asking.told.error["code"]) == (429, "queue_full")
        assert asking.told.headers["retry-after"] == "1"
        assert len(scene.posted) == 2
        for one, its_call in (first, second):
            one.leave()
            await its_call

    played(play, most_open=2)


ALL_BUT_STOPS = "every token but those that end a text"
FORESEEN: list[tuple[str, dict[str, Any], int, str | None]] = [
    (TEXT, {"prompt": [5] * 300}, 400, "context_length_exceeded"),
    (TEXT, {"prompt": [[5], [5] * 300]}, 400, "context_length_exceeded"),
    (CHAT, {"messages": [{"role": "user", "content": "a " * 900}]}, 400, "context_length_exceeded"),
    (TEXT, {"prompt": [5, 100_000]}, 400, None),
    (CHAT, TALK | {"n": 16, "max_tokens": -1}, 400, None),
    (TEXT, {"prompt": "a", "n": 16, "max_tokens": 200}, 400, None),
    (CHAT, TALK | {"logit_bias": {str(id_): False for id_ in range(512)}}, 400, None),
    (TEXT, {"prompt": "a", "logit_bias": ALL_BUT_STOPS, "min_tokens": 1}, 400, None),
    (CHAT, TALK | {"adapters": [{"name": "nobody"}]}, 404, "adapter_not_found"),
    (CHAT, TALK | {"model": "another"}, 404, "model_not_found"),
    (CHAT, TALK | {"temperature": -1}, 400, None),
    (CHAT, TALK | {"tools": [{}]}, 400, None),
    (CHAT, TALK | {"tool_choice": "required"}, 400, "unsupported_parameter"),
]


@pytest.mark.parametrize(("path", "body", "status", "code"), FORESEEN)
def test_what_can_be_known_is_refused_before_the_worker_hears_of_it(
    service: Service, played: Any, path: str, body: dict[str, Any], status: int, code: str | None
) -> None:
    async def play(scene: Played) -> None:
        scene.served.blocks = 64
        stops = scene.served.stop_ids
        if body.get("logit_bias") == ALL_BUT_STOPS:
            body["logit_bias"] = {str(id_): False for id_ in range(512) if id_ not in stops}
        asking, call = scene.begin(path, body | {"stream": True})
        await call
        assert (asking.told.status, asking.told.error["code"]) == (status, code), asking.told.body
        assert not scene.posted

    before = service.served.blocks
    try:
        played(play)
    finally:
        service.served.blocks = before


def test_a_burst_over_the_bound_is_refused_at_once(played: Any) -> None:
    """All arrive before any is computed; the worker never says a word."""

    async def play(scene: Played) -> None:
        calls = [scene.begin(CHAT, TALK | {"stream": True}) for _ in range(12)]
        while sum(asking.told.status == 429 for asking, _ in calls) < 9:
            await asyncio.sleep(0.001)
        while sum(asking.told.status == 200 for asking, _ in calls) < 3:
            await asyncio.sleep(0.001)
        assert len(await scene.submitted(3)) == 3
        for asking, call in calls:
            asking.leave()
            await call

    played(play, most_open=3)


def test_a_dead_worker_is_503_and_unhealthy(played: Any) -> None:
    async def play(scene: Played) -> None:
        scene.client.worker_ended("out of luck")
        asking, call = scene.begin(CHAT, TALK | {"stream": True})
        await call
        assert (asking.told.status, asking.told.error["code"]) == (503, "engine_dead")
        health = Asking("GET", "/health", b"")
        await scene.app(health.scope, health.receive, health.send)
        assert (health.told.status, health.told.json["status"]) == (503, "starting")

    played(play)


def test_a_bug_ends_a_stream_with_an_error(played: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(scene: Played) -> None:
        asking, call = scene.begin(CHAT, TALK | {"stream": True})
        (one,) = await scene.submitted()
        scene.say(Begun(one.id, 0, 9, 1))
        await wrote(asking, 1)
        monkeypatch.setattr("pophood.openai.assembly.Assembly.grow", lambda *_: 1 // 0)
        scene.say(Tokens(one.id, (token(5, "a"),)))
        with pytest.raises(ZeroDivisionError):
            await call
        assert read(asking.told).error["code"] == "internal_error"
        assert scene.cancelled == [one.id]

    played(play)


def test_a_write_that_fails_is_a_client_that_left(played: Any) -> None:
    async def play(scene: Played) -> None:
        asking, _ = scene.begin(CHAT, TALK | {"stream": True})
        await scene.submitted()

        async def broken(_: Any) -> None:
            raise OSError

        again = Asking("POST", CHAT, json.dumps(TALK | {"stream": True}).encode())
        call = asyncio.ensure_future(scene.app(again.scope, again.receive, broken))
        two = (await scene.submitted(2))[1]
        await call
        assert scene.cancelled == [two.id]
        asking.leave()

    played(play)
