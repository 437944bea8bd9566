"""How much a connection may do before there is a request: uvicorn's protocol with limits of its own.

uvicorn waits for headers without end and answers what is malformed in plain text. Here headers have a limit
of size (431) and of time (408), connections a limit of number (503), and answers are JSON.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from pophood.serve.guard.access import new_id
from pophood.serve.guard.asgi import body_of
from pophood.serve.guard.limits import HEADER_BYTES

HEADER_SECONDS = 10.0  # from the first byte, or from the connection, to the end of the headers
IDLE_SECONDS = 30  # between two requests on one connection
UNREAD_SECONDS = 10.0  # to swallow a body that was refused, so that the client reads why
AHEAD_BYTES = 64 << 10  # that a client may send before its last request is answered
CONNECTIONS = 500
HOST_FAULTS = ("Missing mandatory Host", "multiple Host")  # in h11's words


class GuardedProtocol(H11Protocol):
    """One connection. `most_connections` and `header_seconds` are set for all by a subclass (`guarded`)."""

    most_connections = CONNECTIONS
    header_seconds = HEADER_SECONDS
    unread_seconds = UNREAD_SECONDS
    _timer: asyncio.TimerHandle | None = None
    _expects: Literal["headers", "rest", ""] = ""  # what the timer waits for; "rest": of a refused body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._say(503, f"more than {self.most_connections:,} connections are open", {"retry-after": "1"})
        else:
            self._start_timer("headers")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def handle_events(self) -> None:
        super().handle_events()
        # uvicorn stops reading when more is sent before an answer is done; it would not see the client leave.
        ahead, _ = self.conn.trailing_data
        if self.flow.read_paused and self.conn.their_state is h11.DONE and len(ahead) <= AHEAD_BYTES:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer what h11 refuses; `msg` is uvicorn's text for all of it."""
        fault = sys.exc_info()[1]
        status, words = 400, msg
        if isinstance(fault, h11.RemoteProtocolError):
            status, words = fault.error_status_hint, str(fault)
            if any(part in words for part in HOST_FAULTS):
                status = 403
            elif status == 431:
                words = f"the headers are larger than {HEADER_BYTES:,} bytes"
        self._say(status, words)

    # ---- time ----

    def _watch(self) -> None:
        """Run the timer while headers have begun, and while the rest of a refused body comes."""
        client, ours = self.conn.their_state, self.conn.our_state
        if self.transport.is_closing():
            self._stop_timer()
        elif client is h11.IDLE:
            if self._expects == "rest":
                self._stop_timer()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
            if self.conn.trailing_data[0] and not self._expects:
                self._start_timer("headers")
        elif client is h11.SEND_BODY and ours is h11.DONE:
            if self._expects != "rest":
                self._start_timer("rest")
        else:
            self._stop_timer()

    def _start_timer(self, expects: Literal["headers", "rest"]) -> None:
        self._stop_timer()
        self._expects = expects
        seconds = self.header_seconds if expects == "headers" else self.unread_seconds
        self._timer = self.loop.call_later(seconds, self._late)

    def _stop_timer(self) -> None:
        self._expects = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._expects == "headers":
            self._say(408, f"the headers did not arrive within {self.header_seconds:g} s")
        else:
            self.transport.abort()

    # ---- answers without a route ----

    def _say(self, status: int, words: str, more: dict[str, str] | None = None) -> None:
        """Answer with an error and close the connection; only close it if an answer has begun already."""
        self._stop_timer()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = body_of(status, ascii(words)[1:-1], None)
            fields = {"content-type": "application/json", "content-length": str(len(body))}
            fields |= {"connection": "close", "x-request-id": new_id()} | (more or {})
            reason = STATUS_PHRASES[status]
            start = h11.Response(status_code=status, headers=list(fields.items()), reason=reason)
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def guarded(**settings: Any) -> type[GuardedProtocol]:
    """Return the protocol with other limits, for a server of a test: `guarded(header_seconds=0.5)`."""
    return type("GuardedProtocol", (GuardedProtocol,), settings)
