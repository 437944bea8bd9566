"""EngineProcess: one model's process over its life. It loads, starts again if it ended by itself, and drains.

load ─► begin ─► events to the client ... ─┬─► it ended by itself: requests inside fail, it starts again
                                           └─► drain, end
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pophood.errors import BadInput, PophoodError
from pophood.serve.client import EngineClient
from pophood.serve.messages import Drain, Message, UseThreads
from pophood.serve.process.records import (
    EngineFault,
    LoadedFacts,
    LoadLine,
    LoadOrder,
    LoadProgress,
    LoadRefusal,
)
from pophood.serve.process.spawn import ChildProcess, cause_of_end

DELAYS = (0.0, 0.0, 1.0, 2.0, 5.0)  # seconds before it is started again; the last one for ever
TOLD = 3  # starts that failed in a row, after which the console hears of it
REAPING = 0.005  # seconds between two looks at a process that is ending
LONGEST_END = 2.0  # seconds that it may take to end after its pipe has closed

Say = Callable[[str], object]
Progress = Callable[[int, int], object]


class EngineProcess:
    """The process of one model, with the `client` that requests go to.

    `wait` and `end` block; everything else is for the thread of the event loop. `facts` are those of the
    first load. `restarts` counts how often it was started again.
    """

    def __init__(self, order: LoadOrder, *, say: Say, detail: Say) -> None:
        self.client = EngineClient(self._post)
        self.restarts = 0
        self._order, self._say, self._detail = order, say, detail
        self._facts: LoadedFacts | None = None
        self._child: ChildProcess | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._computes = False  # the model is loaded, and the process has not ended
        self._stopping = False
        self._threads: UseThreads | None = None  # the wish that was told last
        self._fault = ""  # what the process said before it ended
        self._failures = 0  # starts that failed in a row
        self._down_since = 0.0
        self._early: list[Any] = []  # messages that came before the loop ran

    @property
    def facts(self) -> LoadedFacts:
        assert self._facts is not None, "it is not loaded yet"
        return self._facts

    @property
    def open_requests(self) -> int:
        """The number of requests that have not ended."""
        return self.client.open_requests

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return None if self._child is None else self._child.pid

    # ---- the beginning ----

    def start(self) -> None:
        """Start the process; the model loads meanwhile."""
        self._child = ChildProcess(self._order)

    def wait(self, progress: Progress = lambda *_: None) -> LoadedFacts:
        """Wait until the model is loaded. Raises the process's error, or PophoodError if it died."""
        assert self._child is not None
        while (messages := self._child.receive()) is not None:
            for number, message in enumerate(messages):
                if isinstance(message, LoadedFacts):
                    self._facts, self._early = message, messages[number + 1 :]
                    return message
                if isinstance(message, LoadProgress):
                    progress(message.done, message.total)
                elif isinstance(message, LoadLine):
                    self._say(message.words)
                elif isinstance(message, LoadRefusal):
                    self._show_trace(message)
                    raise error_of(message)
                elif isinstance(message, EngineFault):
                    raise PophoodError(message.words)
        child, self._child = self._child, None
        child.close()
        cause = cause_of_end(child.exit_code() or 0)
        raise PophoodError(f"the model's process was ended by {cause} while it loaded{advice(cause)}")

    def begin(self) -> None:
        """Take requests, in the running event loop."""
        assert self._child is not None
        self._loop = asyncio.get_running_loop()
        self._order = replace(
            self._order, context=self.facts.capacity.context, memory=self.facts.capacity.memory
        )
        self._computes = True
        self._child.attach(self._loop, self._arrived, self._child_ended)
        early, self._early = self._early, []
        self._arrived(early)

    # ---- messages ----

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads, also after another start."""
        self._threads = UseThreads(threads)
        self._post(self._threads)

    def _post(self, message: Message) -> None:
        if self._computes and self._child is not None:
            self._child.send(message)

    def _arrived(self, messages: Sequence[Any]) -> None:
        for message in messages:
            if isinstance(message, list):
                self.client.receive(message)
            elif isinstance(message, LoadLine):
                (self._say if self._computes else self._detail)(message.words)
            elif isinstance(message, EngineFault):
                self._fault = message.words
            elif isinstance(message, LoadRefusal):
                self._show_trace(message)
                self._fault = message.words
            elif isinstance(message, LoadedFacts):
                self._loaded_again(message)

    def _show_trace(self, refusal: LoadRefusal) -> None:
        if refusal.trace:
            self._detail(refusal.trace)

    # ---- starting again ----

    def _child_ended(self) -> None:
        """Fail what is inside, and wait until the system has taken everything back."""
        assert self._loop is not None
        if self._computes:
            self._computes = False
            self._down_since = self._loop.time()
            if self.client.open_requests or not self._stopping:
                self.client.worker_ended("the model's process has ended; it is started again")
        self._reap(self._loop.time() + LONGEST_END)

    def _reap(self, end: float) -> None:
        assert self._loop is not None
        child = self._child
        if child is None:  # `end` was faster
            return
        code = child.exit_code()
        if code is None and self._loop.time() < end:
            self._timer = self._loop.call_later(REAPING, self._reap, end)
            return
        child.kill()
        child.close()
        self._child = None
        if not self._stopping:
            self._plan_start(cause_of_end(child.exit_code() or 0))

    def _plan_start(self, cause: str) -> None:
        """Start it at once, or later if that has failed several times."""
        assert self._loop is not None
        why = f"an error: {self._fault}" if self._fault else cause
        self._fault = ""
        if self._failures == 0:
            self._say(f"the model's process was ended by {why}: starting it again{advice(cause)}")
        elif self._failures == TOLD:
            self._say(
                f"the model's process does not start ({why}): trying again every {DELAYS[-1]:g} s, and "
                "requests get 503"
            )
        self.client.fault = f"the model's process was ended by {why}; it is started again"
        delay = DELAYS[min(self._failures, len(DELAYS) - 1)]
        self._failures += 1
        self._timer = self._loop.call_later(delay, self._start_again)

    def _start_again(self) -> None:
        assert self._loop is not None
        if self._stopping:
            return
        self.restarts += 1
        try:
            self._child = ChildProcess(self._order)
        except OSError as error:
            self._plan_start(str(error))
            return
        self._child.attach(self._loop, self._arrived, self._child_ended)

    def _loaded_again(self, facts: LoadedFacts) -> None:
        assert self._loop is not None
        if _computation(facts) != _computation(self.facts):
            self.client.fault = "the model's files have changed: start the server again"
            self._say(self.client.fault)
            self._stopping = True
            if self._child is not None:
                self._child.kill()
            return
        self._computes, self._failures = True, 0
        if self._threads is not None:
            self._post(self._threads)
        self.client.worker_back()
        self._say(f"the model computes again, after {self._loop.time() - self._down_since:.1f} s")

    # ---- the end ----

    def drain(self, grace: float) -> None:
        """Refuse new requests; the others have `grace` seconds."""
        self._stopping = True
        self.client.drain(grace)

    def end(self, seconds: float) -> None:
        """End the process: what it computes within so many seconds, a process that loads at once."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        child, self._child = self._child, None
        if child is None:
            return
        if self._computes:
            child.send(Drain())
        else:
            child.kill()
        child.end(seconds)


def _computation(facts: LoadedFacts) -> tuple[object, ...]:
    """Return what the bits of answers depend on, and what clients were told."""
    return facts.digest, facts.precision, facts.kv, facts.isa, facts.capacity


def advice(cause: str) -> str:
    """Return what a user may do about a process that was ended in this way."""
    return " (the system may be short of memory)" if cause == "SIGKILL" else ""


def error_of(refusal: LoadRefusal) -> Exception:
    """Return the error that a process reported, as the command line knows it.

    >>> error_of(LoadRefusal("BadInput", "the port is no number"))
    BadInput('the port is no number')
    """
    if refusal.trace:
        return RuntimeError(f"{refusal.kind}: {refusal.words}")
    if refusal.kind == "MemoryError":
        return MemoryError(refusal.words)
    return (BadInput if refusal.kind in ("BadInput", "ContextOverflow") else PophoodError)(refusal.words)
