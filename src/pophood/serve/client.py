"""The asyncio side of the worker: it submits requests and hands each one's events to whoever waits for them.

    reply = client.submit(ids, settings)
    async with reply:                    # leaving the block cancels what is not done
        async for event in reply: ...    # the last event is Ended or Failed

Everything here runs in the thread of the event loop. The worker calls `loop.call_soon_threadsafe(receive,
events)` once per step, however many requests and tokens that step had.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self

from pophood.generate import GenerateSettings
from pophood.generate.pooling import Pooling
from pophood.phrases import USUAL
from pophood.serve.guard.access import Access, present
from pophood.serve.messages import (
    AdapterPair,
    AddAdapter,
    Answered,
    Cancel,
    CourseStep,
    Drain,
    Ended,
    Errand,
    Event,
    Failed,
    Gauges,
    Message,
    ShowView,
    Submit,
    ViewShown,
)


class Reply(AsyncIterator[Answered]):
    """The events of one request, in order. The iteration ends after the last one, or when it is closed.

    For one reader at a time.
    """

    def __init__(self, number: int, leave: Callable[[Reply], None], access: Access | None = None) -> None:
        self.id = number
        self.access = access
        self.ended = False  # True once Ended or Failed has arrived; it may not have been read yet
        self._leave = leave
        self._events: deque[Answered] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._closed = False
        self.notify: Callable[[], object] | None = None  # called for every event, by a reader of several

    @property
    def ready(self) -> bool:
        """True if the next event is here already, so that it can be written together with the last one."""
        return bool(self._events)

    async def __anext__(self) -> Answered:
        while not self._events:
            if self._closed or self.ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._events.popleft()

    def push(self, event: Answered) -> None:
        """Take the next event; what comes after `close` is dropped."""
        if self._closed:
            return
        self._events.append(event)
        if self.access is not None:
            self.access.count(event)
        self.ended = isinstance(event, Ended | Failed | ViewShown)
        self._wake()

    def close(self) -> None:
        """Drain: a request that is not done is cancelled, and a reader that waits gets no more events."""
        if not self._closed:
            self._closed = True
            if self.access is not None and not self.ended:
                self.access.cancelled = True
            self._events.clear()
            self._leave(self)
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if self.notify is not None:
            self.notify()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EngineClient:
    """Submits requests to a worker through `post`, which any thread may call, and sorts what comes back.

    `gauges` is the state of the worker that was reported last. `fault` is None, or why there is no worker;
    `stopping` is True once the server ends.
    """

    def __init__(self, post: Callable[[Message], object]) -> None:
        self._post = post
        self._numbers = count(1)
        self._open: dict[int, Reply] = {}
        self.gauges = Gauges()
        self.fault: str | None = None
        self.stopping = False

    def submit(
        self,
        prompt: Sequence[int],
        settings: GenerateSettings,
        *,
        client: Hashable = None,
        adapters: Sequence[AdapterPair] = (),
        scores: int | None = None,
        generates: bool = True,
        pools: Pooling | None = None,
        pause: float = 0.0,
    ) -> Reply:
        """Send a request and return its reply, whose events arrive later. Arguments are those of `Submit`.

        `client` None is whoever the calling task answers (`guard.access`); its tokens are counted. Nothing is
        raised: a prompt that is too long, or a queue that is full, is an event `Failed`.
        """
        access = present()
        client = access.client if client is None and access is not None else client
        return self._sent(
            lambda number: Submit(
                number,
                client,
                tuple(prompt),
                settings,
                tuple(adapters),
                scores,
                generates,
                pools,
                pause,
            )
        )

    def look(
        self,
        name: str,
        text: str | tuple[int, ...] | None,
        options: Mapping[str, Any],
        adapters: Sequence[AdapterPair] = (),
        precision: str | None = None,
        language: str = USUAL,
    ) -> Reply:
        """Ask for a view, whose reply has one event: ViewShown or Failed. Arguments as in `ShowView`."""
        return self._sent(
            lambda number: ShowView(number, name, text, options, tuple(adapters), precision, language)
        )

    def add_adapter(self, name: str, place: str) -> Reply:
        """Open an adapter for later requests; the reply has one event: ViewShown or Failed."""
        return self._sent(lambda number: AddAdapter(number, name, place))

    def course_step(self, language: str, page: int, **asked: Any) -> Reply:
        """Run a cell of the course, or judge a guess; the fields are those of `CourseStep`."""
        return self._sent(lambda number: CourseStep(number, language, page, **asked))

    def _sent(self, make: Callable[[int], Submit | Errand]) -> Reply:
        reply = Reply(next(self._numbers), self._close, present())
        if self.fault is not None:
            reply.push(Failed(reply.id, "dead", self.fault))
            return reply
        if self.stopping:
            reply.push(Failed(reply.id, "stopping", "the server is ending"))
            return reply
        self._open[reply.id] = reply
        self._post(make(reply.id))
        return reply

    def receive(self, events: Sequence[Event]) -> None:
        """Take the events of one step, in the thread of the event loop."""
        for event in events:
            if isinstance(event, Gauges):
                self.gauges = event
            elif (reply := self._open.get(event.id)) is not None:
                reply.push(event)
                if reply.ended:
                    del self._open[event.id]

    def worker_ended(self, why: str) -> None:
        """End every open request with Failed, and refuse new ones until there is a worker again."""
        self.fault = why
        self.gauges = Gauges()
        for number in list(self._open):
            self.receive([Failed(number, "dead", why)])

    def worker_back(self) -> None:
        """Take requests again: there is a new worker, which knows nothing of earlier ones."""
        self.fault = None

    def drain(self, grace: float) -> None:
        """Refuse new requests; the others have `grace` seconds."""
        self.stopping = True
        self._post(Drain(grace))

    @property
    def open_requests(self) -> int:
        """The number of requests that have not ended."""
        return len(self._open)

    def _close(self, reply: Reply) -> None:
        if self._open.pop(reply.id, None) is not None:
            self._post(Cancel(reply.id))
