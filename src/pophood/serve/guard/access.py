"""A record of each request: its id, who asks, and what it took. Counted for /metrics, logged with -v.

The outermost middleware makes one `Access` per request and leaves it in a context variable, where the client
of the worker finds it and adds tokens. The text of a request or an answer is nowhere in it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field

from pophood.errors import one_line
from pophood.serve.guard.asgi import AsgiApp, AsgiMessage, Receive, Scope, Send, header, refuse
from pophood.serve.messages import Answered, Begun, Ended, Failed, Tokens

_OWN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
CLOSED_BY_CLIENT = 499  # nginx's status for a client that left before the answer


@dataclass(slots=True)
class Access:
    """One request: where it went, its tokens, and its end; `first_token` and `seconds` count from `began`."""

    request_id: str
    client: Hashable
    method: str
    route: str = "other"
    status: int = CLOSED_BY_CLIENT
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    first_token: float | None = None
    seconds: float = 0.0
    finishes: list[str] = field(default_factory=list)
    cancelled: bool = False
    model: str | None = None  # its public name; None for a route without one
    began: float = field(default_factory=time.perf_counter)

    def count(self, event: Answered) -> None:
        """Count an event of the worker."""
        if isinstance(event, Tokens):
            self.generated_tokens += len(event.tokens)
            if self.first_token is None:
                self.first_token = time.perf_counter() - self.began
        elif isinstance(event, Begun):
            self.prompt_tokens += event.prompt_tokens
            self.cached_tokens += event.cached
        elif isinstance(event, Ended):
            self.finishes += event.finishes.values()
        elif isinstance(event, Failed):
            self.finishes.append(event.kind)

    def line(self, model: str) -> str:
        """Return the line of the log.

        >>> Access("req-1", None, "GET", "/health", 200).line("smollm2")
        'GET /health 200 model=smollm2 tokens=0+0 cached=0 seconds=0.000 finish=- id=req-1'
        """
        finish = ",".join(dict.fromkeys(self.finishes)) or ("cancelled" if self.cancelled else "-")
        return (
            f"{self.method} {self.route} {self.status} model={self.model or model} "
            f"tokens={self.prompt_tokens}+{self.generated_tokens} cached={self.cached_tokens} "
            f"seconds={self.seconds:.3f} finish={finish} id={self.request_id}"
        )


_present: ContextVar[Access | None] = ContextVar("access", default=None)


def present() -> Access | None:
    """Return the request that the calling task answers; None outside one."""
    return _present.get()


class AccessLog:
    """The outermost middleware: it numbers requests, reports their ends, and turns a bug into a 500.

    `ended` receives each `Access`, `broken` a bug and its request's id.
    """

    def __init__(
        self,
        app: AsgiApp,
        ended: Callable[[Access], object],
        broken: Callable[[str, Exception], object],
    ) -> None:
        self._app = app
        self._ended = ended
        self._broken = broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        access = Access(_id_of(scope), _client_of(scope), scope["method"])
        started = False

        async def numbered(message: AsgiMessage) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started, access.status = True, message["status"]
                number = (b"x-request-id", access.request_id.encode("ascii"))
                message = {**message, "headers": [*message.get("headers", ()), number]}
            await send(message)

        token = _present.set(access)
        try:
            await self._app(scope, receive, numbered)
        except Exception as error:  # a bug: it must not end the server, nor show its insides
            self._broken(access.request_id, error)
            if started:
                raise  # the answer is half written: uvicorn closes the connection
            await refuse(numbered, 500, f"a bug in pophood, request {access.request_id}", "internal_error")
        finally:
            _present.reset(token)
            access.seconds = time.perf_counter() - access.began
            access.route = getattr(scope.get("route"), "path", access.route)
            self._ended(access)


def new_id() -> str:
    """Return an id for a request: "req-" and 24 hexadecimal digits."""
    return f"req-{secrets.token_hex(12)}"


def _id_of(scope: Scope) -> str:
    """Return the client's own x-request-id if it is harmless, else a new one."""
    own = header(scope, b"x-request-id") or ""
    return own if _OWN_ID.fullmatch(own) else new_id()


def _client_of(scope: Scope) -> Hashable:
    """Return who asks, for fairness: programs on one machine differ by their User-Agent."""
    peer = scope.get("client")
    return (peer[0] if peer else "", one_line(ValueError(header(scope, b"user-agent") or ""))[:80])
