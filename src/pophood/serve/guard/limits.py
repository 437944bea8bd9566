"""How much may be sent: content type, size, depth and time of a request's body. Pure ASGI.

The body is read here, counted while it comes, and handed on whole, so that no parser meets one that is too
large, too deep, or never ends. What comes before the body (headers, connections) is in `connections.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass

from pophood.serve.guard.asgi import AsgiApp, AsgiMessage, Receive, Scope, Send, header, refuse

HEADER_BYTES = 32 << 10  # of the request line and all headers
BYTES_TYPE = "application/octet-stream"  # of an upload; as with JSON, a page of another site cannot send it
_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*"', re.DOTALL)
_OTHER = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE = bytes.maketrans(b"{}", b"[]")


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds of one request's body. `values` are lists and objects, which take far more memory than bytes."""

    size: int = 4 << 20
    depth: int = 64
    values: int = 50_000
    seconds: float = 30.0


class Limits:
    """The middleware: it answers 408, 411 for none, 413, 415 and 400, and passes the rest to `app`.

    At a path of `uploads` bytes are passed on as they come, and the route counts them.
    """

    def __init__(self, app: AsgiApp, limits: BodyLimits | None = None, uploads: Collection[str] = ()) -> None:
        self._app = app
        self._limits = limits or BodyLimits()
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
            # The parser counts only headers that do not arrive at once.
            await refuse(
                send, 431, f"the headers are larger than {HEADER_BYTES:,} bytes", "headers_too_large"
            )
            return
        if scope["method"] not in ("POST", "PATCH"):  # no route reads the body of another method
            await self._app(scope, receive, send)
            return
        if scope["path"] in self._uploads and header(scope, b"content-type") == BYTES_TYPE:
            await self._app(scope, receive, send)
            return
        if not is_json(header(scope, b"content-type")):
            await refuse(send, 415, "wanted the header `Content-Type: application/json`", "not_json")
            return
        try:
            body = await self._body(scope, receive)
        except TooLarge:
            message = f"the body is larger than {self._limits.size:,} bytes: send less at once"
            await refuse(send, 413, message, "body_too_large")
            return
        except TimeoutError:
            message = f"the body did not arrive within {self._limits.seconds:g} s"
            await refuse(send, 408, message, "body_too_slow", {"connection": "close"})
            return
        if body is None:
            return  # the client has gone
        if fault := nesting_fault(body, self._limits):
            await refuse(send, 400, fault, "body_too_deep")
            return
        await self._app(scope, _again(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read the whole body; None if the client leaves. Raises TooLarge, TimeoutError."""
        announced = header(scope, b"content-length") or ""
        if announced.isdecimal() and int(announced) > self._limits.size:
            raise TooLarge
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._limits.seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                part = message.get("body", b"")
                size += len(part)
                if size > self._limits.size:
                    raise TooLarge
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)


class TooLarge(Exception):
    """A body over the limit."""


def is_json(content_type: str | None) -> bool:
    """Return whether a content type is JSON. A page of another site can send text and forms, but not this.

    >>> is_json("application/json; charset=utf-8"), is_json("text/plain")
    (True, False)
    """
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


def nesting_fault(body: bytes, limits: BodyLimits) -> str | None:
    """Return what is wrong with the nesting of a JSON text, or None.

    Brackets that do not match, and those of the wrong kind, are left to the parser, unless there are many.

    >>> nesting_fault(b'{"a": [1, "[[["]}', BodyLimits(depth=2)) is None
    True
    """
    if body.count(b"[") + body.count(b"{") <= limits.depth:  # nearly every request
        return None
    brackets = _STRING.sub(b"", body).translate(_SQUARE, _OTHER)
    if brackets.count(b"[") > limits.values:
        return f"the body has more than {limits.values:,} lists and objects: send less at once"
    for _ in range(limits.depth):  # each pass removes what holds no brackets any more
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return None
    return f"the body is nested deeper than {limits.depth} levels, or its brackets do not match"


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body as one message, and afterwards what the connection gives."""
    given = False

    async def replay() -> AsgiMessage:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
