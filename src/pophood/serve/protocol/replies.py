"""The prompts of one HTTP request: submitted a few at a time, their events read as one series."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pophood.openai.asked import PromptJob
from pophood.openai.errors import BUSY, ApiError
from pophood.serve.client import EngineClient, Reply
from pophood.serve.messages import Answered

MOST_OPEN = 256  # requests that wait at the worker or are computed
AT_ONCE = 16  # prompts of one request that wait or are computed; the rest take no place in the queue


class Replies:
    """The replies to several prompts. Leaving the block cancels what is not done.

    async with Replies(client, jobs) as replies:
        while not replies.done:
            for number, event in await replies.next(seconds=10): ...
    """

    def __init__(
        self,
        client: EngineClient,
        jobs: Sequence[PromptJob],
        *,
        most_open: int = MOST_OPEN,
        pause: float = 0.0,
    ) -> None:
        """With `most_open` requests at the worker entering the block raises ApiError, 429.

        Later prompts wait here then, unless no other one is open. `pause` is as in `Submit`.
        """
        self._client, self._most_open, self._pause = client, most_open, pause
        self._waiting = deque(enumerate(jobs))
        self._open: dict[int, Reply] = {}
        self._arrived: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def done(self) -> bool:
        """True when every event has been read."""
        return not self._waiting and not self._open

    async def next(self, seconds: float | None = None) -> list[tuple[int, Answered]]:
        """Return the events that have arrived, each with the number of its prompt.

        If there are none, wait for some, `seconds` at most: the list is empty then.
        """
        events = await self._take()
        if events or self.done:
            return events
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        while not events and (end is None or loop.time() < end):
            self._arrived = loop.create_future()
            if end is not None:
                self._wake_at(loop, end)
            try:
                await self._arrived
            finally:
                self._arrived = None
            events = await self._take()
        return events

    def _wake_at(self, loop: asyncio.AbstractEventLoop, end: float) -> None:
        """Let a timer wake `next` at `end` or before.

        A timer of an earlier call is left to run, since a new one for every token would cost more than that
        it wakes too soon now and then.
        """
        if self._timer is not None and loop.time() < self._timer.when() <= end:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(end, self._wake)

    def close(self) -> None:
        """Cancel what is not done."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        while self._open:
            self._open.popitem()[1].close()

    async def __aenter__(self) -> Self:
        # Checked in the same turn of the loop as it is submitted: no burst of requests slips through.
        if self._client.open_requests >= self._most_open:
            message = f"{self._client.open_requests:,} requests wait or are computed already: try again later"
            raise ApiError(429, message, BUSY, code="queue_full")
        self._submit()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _take(self) -> list[tuple[int, Answered]]:
        events = []
        for number, reply in list(self._open.items()):
            while reply.ready:
                events.append((number, await anext(reply)))
            if reply.ended:
                del self._open[number]
        self._submit()
        return events

    def _submit(self) -> None:
        while self._waiting and len(self._open) < AT_ONCE:
            if self._open and self._client.open_requests >= self._most_open:
                return
            number, job = self._waiting.popleft()
            reply = self._client.submit(
                job.prompt,
                job.settings,
                adapters=job.adapters,
                scores=job.scores,
                generates=job.generates,
                pools=job.pools,
                pause=self._pause,
            )
            reply.notify = self._wake
            self._open[number] = reply

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
