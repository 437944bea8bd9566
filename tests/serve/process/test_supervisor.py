"""A model's process over its life: refusals, a start that fails, files that change, threads, a full pipe."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadInput, PophoodError
from pophood.generate import GenerateSettings
from pophood.serve.messages import Ended, Event, Failed, Tokens
from pophood.serve.process import supervisor
from pophood.serve.process.records import LoadOrder, LoadRefusal
from pophood.serve.process.supervisor import EngineProcess, error_of
from tests import processes
from tests.needs import linux
from tests.processes import HANG_SECONDS
from tests.tiny import tiny_folder

SETTINGS = GenerateSettings(max_tokens=3, seed=5, stop_ids=())
LONG = GenerateSettings(max_tokens=4000, seed=5, stop_ids=())


class Watched:
    """A process of a model, what it said, and a loop to run it in."""

    def __init__(self, model: Path, **order: Any) -> None:
        self.said: list[str] = []
        self.engine = EngineProcess(
            LoadOrder("tiny", model, **order), say=self.said.append, detail=lambda _: None
        )

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Load the model, run a coroutine beside it, and end the process; none is left."""
        try:
            self.engine.start()
            self.engine.wait()

            async def whole() -> None:
                self.engine.begin()
                await asyncio.wait_for(test, HANG_SECONDS)
                self.engine.drain(0)

            asyncio.run(whole())
        finally:
            self.engine.end(10)
        assert not processes.descendants()

    def kill(self, number: signal.Signals) -> None:
        assert self.engine.pid is not None
        os.kill(self.engine.pid, number)

    async def until_up(self) -> None:
        while self.engine.client.fault is None:
            await asyncio.sleep(0.005)
        while self.engine.client.fault is not None:
            await asyncio.sleep(0.005)

    async def until_said(self, words: str) -> None:
        while not any(words in line for line in self.said):
            await asyncio.sleep(0.005)

    async def asked(self, settings: GenerateSettings = SETTINGS) -> list[Event]:
        async with self.engine.client.submit([5, 6, 7], settings) as reply:
            return [event async for event in reply]


def tokens(events: list[Event]) -> list[int]:
    return [token.id for event in events if isinstance(event, Tokens) for token in event.tokens]


def failure(events: list[Event]) -> Failed:
    assert isinstance(events[-1], Failed)
    return events[-1]


@pytest.fixture
def model(tiny_chat: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model, which a test may change."""
    return Path(shutil.copytree(tiny_chat, tmp_path / "tiny"))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_it_starts_again_and_answers_with_the_same_bits(tiny_chat: Path, number: signal.Signals) -> None:
    linux()
    watched = Watched(tiny_chat)

    async def test() -> None:
        before = await watched.asked()
        assert isinstance(before[-1], Ended)
        inside = asyncio.create_task(watched.asked(LONG))
        while watched.engine.client.gauges.running == 0:
            await asyncio.sleep(0.001)
        watched.engine.use_threads(1)
        watched.kill(number)
        failed = failure(await inside)
        assert (failed.kind, "has ended" in failed.message) == ("dead", True)
        assert failure(await watched.asked()).kind == "dead"
        await watched.until_up()
        assert tokens(await watched.asked()) == tokens(before)
        assert watched.engine.restarts == 1

    watched.run(test())
    assert watched.said[0].startswith(f"the model's process was ended by {number.name}: starting it again")
    assert watched.said[1].startswith("the model computes again, after ")


def test_a_start_that_fails_is_tried_again_and_told_once(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux()
    monkeypatch.setattr(supervisor, "DELAYS", (0.0, 0.0, 0.01))
    watched = Watched(model)

    async def test() -> None:
        away = model.rename(model.with_name("away"))
        watched.kill(signal.SIGKILL)
        await watched.until_said("does not start")
        while watched.engine.restarts < supervisor.TOLD + 2:
            await asyncio.sleep(0.005)
        assert "started again" in failure(await watched.asked()).message
        away.rename(model)
        await watched.until_up()
        assert isinstance((await watched.asked())[-1], Ended)

    watched.run(test())
    assert sum("does not start" in line for line in watched.said) == 1
    assert "no such" in next(line for line in watched.said if "does not start" in line).lower()
    assert len(watched.said) == 3


def test_a_model_whose_files_have_changed_is_not_another_one_by_the_same_name(
    model: Path, tmp_path: Path
) -> None:
    linux()
    watched = Watched(model)

    async def test() -> None:
        shutil.rmtree(model)
        tiny_folder(model, "llama", n_positions=4096, n_layer=1)
        watched.kill(signal.SIGKILL)
        await watched.until_said("files have changed")
        assert "files have changed" in failure(await watched.asked()).message

    watched.run(test())


def test_a_full_pipe_keeps_nobody_waiting(tiny_chat: Path) -> None:
    linux()
    watched = Watched(tiny_chat)

    async def test() -> None:
        watched.kill(signal.SIGSTOP)
        client = watched.engine.client
        began = time.monotonic()
        replies = [client.submit([5 + n % 500 for n in range(2000)], SETTINGS, client=i) for i in range(100)]
        for reply in replies[1:]:
            reply.close()
        assert time.monotonic() - began < HANG_SECONDS / 10
        await asyncio.sleep(0.05)
        watched.kill(signal.SIGCONT)
        assert isinstance([event async for event in replies[0]][-1], Ended)
        assert isinstance((await watched.asked())[-1], Ended)

    watched.run(test())


def test_a_process_that_does_not_end_is_killed(tiny_chat: Path) -> None:
    linux()
    watched = Watched(tiny_chat)
    watched.engine.start()
    watched.engine.wait()
    watched.kill(signal.SIGSTOP)
    began = time.monotonic()
    watched.engine.end(0.1)
    assert time.monotonic() - began < HANG_SECONDS / 10
    assert not processes.descendants()


@pytest.mark.parametrize(
    ("order", "error", "words"),
    [
        ({"context": 70_000}, BadInput, "context"),
        ({"memory": 1000}, BadInput, "hold 0 tokens"),
        ({"adapters": (("one", "missing"),)}, PophoodError, "missing"),
        ({"reserved": 1 << 60}, PophoodError, "free beside the weights"),
    ],
)
def test_what_is_refused(tiny_chat: Path, order: dict[str, Any], error: type[Exception], words: str) -> None:
    watched = Watched(tiny_chat, **order)
    watched.engine.start()
    with pytest.raises(error, match=words) as raised:
        watched.engine.wait()
    assert isinstance(raised.value, BadInput) == (error is BadInput)
    watched.engine.end(10)
    assert not processes.descendants()


def test_a_process_that_dies_while_it_loads(tiny_chat: Path) -> None:
    linux()
    watched = Watched(tiny_chat)
    watched.engine.start()
    watched.kill(signal.SIGKILL)
    with pytest.raises(PophoodError, match=r"ended by SIGKILL while it loaded \(the system may be short"):
        watched.engine.wait()
    watched.engine.end(10)


def test_errors_as_the_command_line_knows_them() -> None:
    assert isinstance(error_of(LoadRefusal("MemoryError", "")), MemoryError)
    assert type(error_of(LoadRefusal("OutOfMemory", "no"))) is PophoodError
    assert type(error_of(LoadRefusal("FileNotFoundError", "x: no such file"))) is PophoodError
    bug = error_of(LoadRefusal("ZeroDivisionError", "a bug", "Traceback"))
    assert (type(bug), str(bug)) == (RuntimeError, "ZeroDivisionError: a bug")
