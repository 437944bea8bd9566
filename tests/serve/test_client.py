"""The asyncio side of the worker, driven by hand: order, cancelling, and the end of the worker."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Coroutine
from typing import Any

from pophood.generate import GenerateSettings, Timings
from pophood.serve.client import EngineClient, Reply
from pophood.serve.messages import (
    Begun,
    Cancel,
    Drain,
    Ended,
    Event,
    Failed,
    Gauges,
    Message,
    PromptRead,
    PromptScored,
    Submit,
    Tokens,
)
from tests.serve.records import token

SETTINGS = GenerateSettings(max_tokens=3, seed=5)


def pair() -> tuple[EngineClient, list[Message]]:
    posted: list[Message] = []
    return EngineClient(posted.append), posted


async def rest(reply: Reply) -> list[Event]:
    return [event async for event in reply]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_every_message_survives_pickling() -> None:
    records = [
        Submit(1, "me", (1, 2), SETTINGS, (("notes", 0.5),), 3, generates=False),
        Cancel(1),
        Drain(5.0),
        Begun(1, 2, 3, 4),
        PromptRead(1, 2, 3),
        PromptScored(1, ()),
        Tokens(1, (token(7, "a"),)),
        Ended(1, {0: "stop"}, Timings(1.0, 2)),
        Failed(1, "overflow", "too long", 9, 8),
        Gauges(1, 2, 3, 4),
    ]
    assert [pickle.loads(pickle.dumps(one)) for one in records] == records


def test_two_answers_get_their_own_events_in_order() -> None:
    async def test() -> None:
        client, posted = pair()
        one = client.submit([1, 2], SETTINGS, client="a", adapters=[("notes", 0.5)], scores=0)
        two = client.submit([3], SETTINGS, generates=False)
        assert posted == [
            Submit(one.id, "a", (1, 2), SETTINGS, (("notes", 0.5),), 0),
            Submit(two.id, None, (3,), SETTINGS, generates=False),
        ]
        of_one: list[Event] = [
            Begun(one.id, 0, 2, 9),
            Tokens(one.id, (token(7, "x"),)),
            Ended(one.id, {0: "stop"}, Timings()),
        ]
        of_two: list[Event] = [Begun(two.id, 0, 1, 9), Failed(two.id, "engine", "a NaN")]
        client.receive([of_one[0], of_two[0], Gauges(2, 0, 1, 8)])
        client.receive([of_two[1], of_one[1]])
        client.receive([of_one[2], Gauges(0, 0, 0, 8)])
        assert (await rest(one), await rest(two)) == (of_one, of_two)
        assert client.gauges == Gauges(0, 0, 0, 8)
        assert client.open_requests == 0
        assert len(posted) == 2, "what has ended is not cancelled"

    run(test())


def test_a_reader_waits_for_its_events() -> None:
    async def test() -> None:
        client, _ = pair()
        reply = client.submit([1], SETTINGS)
        reader = asyncio.create_task(rest(reply))
        for event in (first := PromptRead(reply.id, 1, 2), last := Failed(reply.id, "internal", "a bug")):
            await asyncio.sleep(0)
            assert not reader.done()
            client.receive([event])
        assert await reader == [first, last]

    run(test())


def test_a_reader_of_several_replies_is_told_of_every_event() -> None:
    async def test() -> None:
        client, _ = pair()
        one, two = client.submit([1], SETTINGS), client.submit([2], SETTINGS)
        told: list[int] = []
        one.notify, two.notify = (lambda: told.append(1)), (lambda: told.append(2))
        client.receive([Begun(two.id, 0, 1, 9), Begun(one.id, 0, 1, 9), Failed(two.id, "engine", "a NaN")])
        one.close()
        assert told == [2, 1, 2, 1]
        assert await rest(two) == [Begun(two.id, 0, 1, 9), Failed(two.id, "engine", "a NaN")]

    run(test())


def test_closing_cancels_once_and_ends_a_reader() -> None:
    async def test() -> None:
        client, posted = pair()
        reply = client.submit([1], SETTINGS)
        reader = asyncio.create_task(rest(reply))
        await asyncio.sleep(0)
        reply.close()
        reply.close()
        assert await reader == []
        assert posted[1:] == [Cancel(reply.id)]
        client.receive([Tokens(reply.id, (token(7, "late"),))])
        assert not reply.ready
        assert client.open_requests == 0

    run(test())


def test_leaving_the_block_cancels_what_is_not_done() -> None:
    async def test() -> None:
        client, posted = pair()
        async with client.submit([1], SETTINGS) as reply:
            client.receive([Begun(reply.id, 0, 1, 9)])
            assert reply.ready
        async with client.submit([1], SETTINGS) as done:
            client.receive([Ended(done.id, {}, Timings())])
        assert [message for message in posted if isinstance(message, Cancel)] == [Cancel(reply.id)]

    run(test())


def test_when_the_worker_ends_every_request_fails() -> None:
    async def test() -> None:
        client, posted = pair()
        reply = client.submit([1], SETTINGS)
        client.worker_ended("out of luck")
        later = client.submit([1], SETTINGS)
        assert [await rest(reply), await rest(later)] == [
            [Failed(reply.id, "dead", "out of luck")],
            [Failed(later.id, "dead", "out of luck")],
        ]
        assert len(posted) == 1

    run(test())
