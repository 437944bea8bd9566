"""ASGI responses: JSON, and answers that stop when their client leaves.

Frameworks notice a client that has gone at the next write, or not at all before the answer is complete. Here
a task waits for `http.disconnect` beside every answer, streamed or not, and cancels the work at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pophood.openai.errors import ApiError
from pophood.serve.protocol import sse

Answering = Callable[[Send], Awaitable[None]]


class Json(Response):
    """A response of JSON in ASCII."""

    media_type = "application/json"

    def __init__(self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sse.compact(data), status, headers)


def refusal(error: ApiError) -> Json:
    """Return the response of an error."""
    return Json(error.body, error.status, error.headers)


async def respond(send: Send, response: Response) -> None:
    """Write a whole response."""
    start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body, "more_body": False})


class Watched(Response):
    """A response that `answering` writes with `send`, as long as the client is there."""

    def __init__(self, answering: Answering) -> None:
        super().__init__()
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._answering(send))
        gone = asyncio.ensure_future(disconnect(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, OSError):  # OSError: the client left during a write
            raise error


async def disconnect(receive: Receive) -> None:
    """Wait until the client has gone. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """Writes the events of one response; the headers leave with `open`, before there is anything to say."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.opened = False

    async def open(self) -> None:
        self.opened = True
        headers = [(name.encode(), value.encode()) for name, value in sse.HEADERS.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
