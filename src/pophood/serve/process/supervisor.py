"""EngineProcess: one model's process over its life. It loads, starts again if it ended by itself, and drains.

load ─► events to the client ... ─┬─► it ended by itself: requests inside fail, it starts again
                                  ├─► unload: it leaves memory; the next request is held, and wakes it
                                  └─► drain, end
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pophood.errors import BadInput, PophoodError, one_line
from pophood.serve.client import EngineClient
from pophood.serve.messages import Cancel, Drain, Errand, Gauges, Message, Submit, UseThreads
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
LONGEST_UNLOAD = 5.0  # seconds in which a process that is unloaded may store its prefixes
LONGEST_END = 2.0  # seconds that it may take to end after its pipe has closed

Say = Callable[[str], object]
Progress = Callable[[int, int], object]
ModelState = Literal["unloaded", "loading", "loaded"]  # as llama.cpp's router calls them


class EngineProcess:
    """The process of one model, with the `client` that requests go to.

    `wait` and `end` block; everything else is for the thread of the event loop. `facts` are those of the
    first load. `restarts` counts how often it was started again. `wake` is called when a request comes for a
    model that was unloaded; it is held until the model is there. `used` is when the last request came.
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
        self.wake: Callable[[], object] = lambda: None
        self.used = time.monotonic()
        self._away = False  # unloaded on purpose, or not loaded yet
        self._held: list[Submit | Errand] = []  # requests for a model that is away
        self._loading: asyncio.Future[None] | None = None
        self._leaving: asyncio.Future[None] | None = None
        self._refusal: LoadRefusal | None = None

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

    @property
    def state(self) -> ModelState:
        """Where the model is, for clients; one that crashed is being loaded again."""
        if self._computes:
            return "loaded"
        return "unloaded" if self._away and self._loading is None else "loading"

    @property
    def unused_memory(self) -> int:
        """Bytes of keys and values that are promised to requests, and not taken yet."""
        if not self._computes:
            return 0
        used, capacity = self.client.gauges.blocks_used, self.facts.capacity
        return capacity.memory * (capacity.blocks - used) // capacity.blocks

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
        self._keep_capacity()
        self._computes, self.used = True, time.monotonic()
        self._child.attach(self._loop, self._arrived, self._child_ended)
        early, self._early = self._early, []
        self._arrived(early)

    def _keep_capacity(self) -> None:
        """Give every later start the window and the memory that clients were told."""
        capacity = self.facts.capacity
        self._order = replace(self._order, context=capacity.context, memory=capacity.memory)

    # ---- coming and going ----

    async def load(self, reserved: int = 0) -> None:
        """Load the model, in the running loop; `reserved` bytes of free memory belong to other models.

        Raises the error of the process, with which the requests that were held fail.
        """
        self._loop = asyncio.get_running_loop()
        self._away, self._refusal, self._loading = True, None, self._loop.create_future()
        try:
            self._leave_out_lost_adapters()
            self._child = ChildProcess(replace(self._order, reserved=reserved))
            self._child.attach(self._loop, self._arrived, self._child_ended)
            await self._loading
        except Exception as error:
            self.fail_held(one_line(error))
            raise
        finally:
            self._loading = None

    async def unload(self) -> None:
        """Let the model leave memory. No request may be open; those that come meanwhile are held."""
        assert self._computes and self._child is not None and not self.open_requests
        self._away, self._computes = True, False
        self._leaving = asyncio.get_running_loop().create_future()
        child = self._child
        child.send(Drain())
        try:
            await asyncio.wait_for(asyncio.shield(self._leaving), LONGEST_UNLOAD)
        except TimeoutError:
            child.kill()
            await self._leaving
        self._leaving = None
        if self._held:
            self.wake()

    @property
    def wanted(self) -> bool:
        """True if requests wait for a model that is away."""
        return bool(self._held)

    def fail_held(self, why: str) -> None:
        """Let requests for a model that is away fail; the next one tries again."""
        self._held.clear()
        if not self._computes:
            self.client.worker_ended(why)
            self.client.worker_back()

    def _hold(self, message: Message) -> None:
        """Keep a request until the model is there, and forget it when its client has gone."""
        if isinstance(message, Submit | Errand):
            self._held.append(message)
            if self._loading is None and self._leaving is None:
                self.wake()
        elif isinstance(message, Cancel):
            self._held = [one for one in self._held if one.id != message.id]

    # ---- messages ----

    def keep_adapter(self, name: str, place: str) -> None:
        """Give every later start an adapter that was added, in the place of one with its name."""
        self.forget_adapter(name)
        self._order = replace(self._order, adapters=(*self._order.adapters, (name, place)))

    def forget_adapter(self, name: str) -> None:
        """Start without an adapter from now on."""
        rest = tuple(one for one in self._order.adapters if one[0] != name)
        self._order = replace(self._order, adapters=rest)

    def _leave_out_lost_adapters(self) -> None:
        """Start without adapters whose files have gone since they were loaded, and say so."""
        for name, place in self._order.adapters:
            if not Path(place).exists():
                self._say(f"the adapter {name} is left out: {place} has gone")
                self.forget_adapter(name)

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads, also after another start."""
        self._threads = UseThreads(threads)
        self._post(self._threads)

    def _post(self, message: Message) -> None:
        if isinstance(message, Submit | Errand):
            self.used = time.monotonic()
        if self._computes and self._child is not None:
            self._child.send(message)
        elif self._away:
            self._hold(message)

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
                self._fault, self._refusal = message.words, message
            elif isinstance(message, LoadedFacts):
                self._loaded(message)

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
        cause = cause_of_end(child.exit_code() or 0)
        if self._loading is not None and not self._loading.done():
            died = PophoodError(f"the model's process was ended by {cause} while it loaded{advice(cause)}")
            self._loading.set_exception(died if self._refusal is None else error_of(self._refusal))
            self._fault = ""
        elif self._leaving is not None and not self._leaving.done():
            self.client.gauges = Gauges()
            self._leaving.set_result(None)
        elif not self._stopping:
            self._plan_start(cause)

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
        self._leave_out_lost_adapters()
        try:
            self._child = ChildProcess(self._order)
        except OSError as error:
            self._plan_start(str(error))
            return
        self._child.attach(self._loop, self._arrived, self._child_ended)

    def _loaded(self, facts: LoadedFacts) -> None:
        assert self._loop is not None and self._child is not None
        if self._facts is None:
            self._facts = facts
            self._keep_capacity()
        if _computation(facts) != _computation(self.facts):
            words = "the model's files have changed: start the server again"
            self._say(words)
            self._refusal = LoadRefusal("BadFile", words)
            if not self._away:
                self.client.fault, self._stopping = words, True
            self._child.kill()
            return
        self._computes, self._failures, self.used = True, 0, time.monotonic()
        if self._threads is not None:
            self._post(self._threads)
        if not self._away:
            self.client.worker_back()
            self._say(f"the model computes again, after {self._loop.time() - self._down_since:.1f} s")
        self._away, held, self._held = False, self._held, []
        for message in held:
            self._post(message)
        if self._loading is not None and not self._loading.done():
            self._loading.set_result(None)

    # ---- the end ----

    def drain(self, grace: float) -> None:
        """Refuse new requests; the others have `grace` seconds."""
        self._stopping = True
        if self._away:
            self.fail_held("the server is ending")
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
