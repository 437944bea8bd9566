"""ASGI types, headers, and a refusal in the shape of OpenAI's errors. (small: shared by all guards)"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

REFUSED_TYPE = {401: "authentication_error", 403: "permission_error"}  # else by the class of the status


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header, or None. Latin-1, as HTTP has it; names are lower case in ASGI."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None


def body_of(status: int, message: str, code: str | None) -> bytes:
    """Return the JSON body of a refusal, in ASCII.

    >>> body_of(413, "too large", None)[:32]
    b'{"error":{"message":"too large",'
    """
    kind = REFUSED_TYPE.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}, separators=(",", ":")).encode("ascii")


async def refuse(
    send: Send,
    status: int,
    message: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a request with an error that no other attempt would change, unless it is one of 408, 429, 503.

    openai's client repeats requests after 408, 409, 429 and 5xx, and reads `x-should-retry`.
    """
    body = body_of(status, message, code)
    fields = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers or {})
    if status not in (408, 429, 503):
        fields["x-should-retry"] = "false"
    await send({"type": "http.response.start", "status": status, "headers": encoded(fields.items())})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def encoded(fields: Iterable[tuple[str, str]]) -> Headers:
    """Return headers as ASGI takes them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
