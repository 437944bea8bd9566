"""A server in a thread, and requests to it as bytes on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pophood.serve.guard.asgi import AsgiApp, Receive, Scope, Send
from pophood.serve.guard.connections import GuardedProtocol
from pophood.serve.guard.listening import Listening, listen
from pophood.serve.server import HttpServer
from tests.processes import HANG_SECONDS

KEY = "the-key-of-the-tests-0123456789"
LOCAL = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Response:
    """A response: its status, its headers in lower case (the last of each name), its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of an error in OpenAI's shape, which is checked."""
        error = self.json["error"]
        assert set(error) >= {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert isinstance(error["code"], str | None)
        return error["code"]


@contextmanager
def serving(app: AsgiApp, protocol: type[GuardedProtocol] = GuardedProtocol) -> Iterator[int]:
    """Serve an app in a thread, and give its port."""
    ready = threading.Event()
    server = HttpServer(app, protocol, ready.set)
    opened: Listening = listen(LOCAL, 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[opened.socket])))
    thread.start()
    assert ready.wait(HANG_SECONDS)
    try:
        yield opened.port
    finally:
        server.should_exit = True
        thread.join()


def connect(port: int) -> socket.socket:
    """Open a connection, which cannot hang for ever."""
    return socket.create_connection((LOCAL, port), timeout=HANG_SECONDS)


def head(method: str, target: str, headers: Mapping[str, str | None]) -> bytes:
    """Return a request line and headers; those that are None are left out."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def request(
    port: int,
    target: str = "/v1/models",
    *,
    method: str | None = None,
    key: str | None = KEY,
    body: Any = None,
    headers: Mapping[str, str | None] | None = None,
) -> Response:
    """Send one request on a connection of its own; `body` is JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    fields: dict[str, str | None] = {"host": f"{LOCAL}:{port}", "connection": "close"}
    fields["authorization"] = None if key is None else f"Bearer {key}"
    if content is not None:
        fields |= {"content-type": "application/json", "content-length": str(len(content))}
    fields |= headers or {}
    method = method or ("GET" if content is None else "POST")
    with connect(port) as stream:
        stream.sendall(head(method, target, fields) + (content or b""))
        return read_response(stream)


def read_response(stream: socket.socket) -> Response:
    """Read one response until its length, its last chunk, or the end of the connection."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        if not (part := stream.recv(65536)):
            raise ConnectionError(f"the connection ended inside the headers: {bytes(received)!r}")
        received += part
    first, _, rest = bytes(received).partition(b"\r\n\r\n")
    status_line, *lines = first.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = bytearray(rest)

    def missing() -> bool:
        if "content-length" in headers:
            return len(body) < int(headers["content-length"])
        return not body.endswith(b"0\r\n\r\n")

    status = int(status_line.split()[1])
    while status not in (204, 304) and missing() and (part := stream.recv(65536)):
        body += part
    whole = bytes(body)
    if "content-length" in headers:  # the next response may have come already
        return Response(status, headers, whole[: int(headers["content-length"])])
    return Response(status, headers, unchunked(whole))


def unchunked(body: bytes) -> bytes:
    """Join the chunks of a body, as far as they came.

    >>> unchunked(b"3\\r\\nabc\\r\\n0\\r\\n\\r\\n")
    b'abc'
    """
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, body = whole + rest[:length], rest[length + 2 :]
    return whole


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 with the method, the path and the body that arrived."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    told = json.dumps({"method": scope["method"], "path": scope["path"], "body": body.decode()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})
