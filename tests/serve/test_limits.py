"""How much may be sent: size, depth, kind and time of headers and bodies, and the number of connections."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest

from pophood.serve.guard import guarded_app
from pophood.serve.guard.connections import AHEAD_BYTES, GuardedProtocol, guarded
from pophood.serve.guard.keys import Key
from pophood.serve.guard.limits import BodyLimits, nesting_fault
from pophood.serve.guard.security import rules_of
from tests.processes import HANG_SECONDS
from tests.serve.wire import KEY, LOCAL, connect, echo, head, read_response, request, serving

LIMITS = BodyLimits(size=100_000, depth=8, values=1000, seconds=1.0)
SHORT = guarded(header_seconds=1.0, unread_seconds=1.0)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(guarded_app(echo, rules_of(Key(KEY, "file")), limits=LIMITS), SHORT) as port:
        yield port


def headers(port: int, **more: str | None) -> dict[str, str | None]:
    fields: dict[str, str | None] = {"host": f"{LOCAL}:{port}", "x-api-key": KEY}
    fields |= {"content-type": "application/json"}
    return fields | {name.replace("_", "-"): value for name, value in more.items()}


def ended(stream: socket.socket) -> bool:
    """Return whether the server has closed a connection; wait for it."""
    stream.settimeout(HANG_SECONDS)
    try:
        return stream.recv(1) == b""
    except ConnectionResetError:
        return True


def how_it_ended(stream: socket.socket) -> int | None:
    """Return the status, or None if what was sent too late took the response away."""
    try:
        return read_response(stream).status
    except ConnectionError:
        return None


# ---- kind and size ----


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", None, "json"],
)
def test_what_a_page_can_send_without_asking_is_not_read(port: int, kind: str | None) -> None:
    response = request(port, body=b"{}", headers={"content-type": kind})
    assert (response.status, response.code) == (415, "not_json")


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_is_read(port: int, kind: str) -> None:
    assert request(port, body=b'{"a":1}', headers={"content-type": kind}).json["body"] == '{"a":1}'


def test_a_body_at_the_limit_arrives_whole_and_one_byte_more_does_not(port: int) -> None:
    body = b'"' + b"x" * (LIMITS.size - 2) + b'"'
    assert len(request(port, body=body).json["body"]) == LIMITS.size
    over = request(port, body=body + b" ")
    assert (over.status, over.code) == (413, "body_too_large")


def test_a_body_without_a_length_is_counted_while_it_comes(port: int) -> None:
    with connect(port) as stream:
        stream.sendall(head("POST", "/v1/x", headers(port, transfer_encoding="chunked")))
        for _ in range(11):
            stream.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        response = read_response(stream)
    assert response.status == 413


def test_a_length_that_lies_does_not_help(port: int) -> None:
    with connect(port) as stream:
        stream.sendall(head("POST", "/v1/x", headers(port, content_length="2")) + b"{}" + b"x" * 200_000)
        assert read_response(stream).json["body"] == "{}"


def test_the_rest_of_a_refused_body_is_swallowed_and_the_connection_goes_on(port: int) -> None:
    body = b" " * 3_000_000
    with connect(port) as stream:
        for _ in range(2):
            stream.sendall(head("POST", "/v1/x", headers(port, content_length=str(len(body)))) + body)
            assert read_response(stream).status == 413
        stream.sendall(head("GET", "/v1/x", headers(port)))
        assert read_response(stream).status == 200


def test_a_refused_body_that_does_not_end_is_cut(port: int) -> None:
    with connect(port) as stream:
        stream.sendall(head("POST", "/v1/x", headers(port, content_length="100000000")) + b" " * 10)
        assert read_response(stream).status == 413
        assert ended(stream)


def test_an_unknown_client_does_not_get_its_body_read(port: int) -> None:
    with connect(port) as stream:
        stream.sendall(head("POST", "/v1/x", headers(port, content_length="5", x_api_key="wrong")))
        assert read_response(stream).status == 401


# ---- depth ----


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_nesting_up_to_the_limit(port: int) -> None:
    assert request(port, body=nested(8)).status == 200
    deep = request(port, body=nested(9))
    assert (deep.status, deep.code) == (400, "body_too_deep")
    assert request(port, body=nested(10_000)).status == 400
    assert request(port, body=b'{"a":' * 10_000 + b"1" + b"}" * 10_000).status == 400
    assert request(port, body=b"[" * 99_000).status == 400


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        (json.dumps({"text": "[" * 500 + "{" * 500}).encode(), True),
        (json.dumps({"text": '\\"[[[[[[[[[[' * 9}).encode(), True),
        (json.dumps([{"a": [{"b": ["[" * 20]}]}] * 100).encode(), True),
        (json.dumps([[]] * 999).encode(), True),
        (json.dumps([[]] * 1000).encode(), False),  # too many, with the outer one
        (b'["' + b'\\"' * 20 + b'", ' + nested(9) + b"]", False),
        (b"[{" * 5 + b"}]" * 5, False),
        (b"]" * 20, True),  # the parser's business
    ],
)
def test_brackets_in_strings_do_not_count(body: bytes, fine: bool) -> None:
    assert (nesting_fault(body, LIMITS) is None) is fine


# ---- time ----


def test_a_body_that_does_not_come_is_408(port: int) -> None:
    with connect(port) as stream:
        stream.sendall(head("POST", "/v1/x", headers(port, content_length="10")) + b"{")
        response = read_response(stream)
        assert (response.status, response.code) == (408, "body_too_slow")
        assert ended(stream)


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_headers_that_do_not_come_are_408(port: int, begun: bytes) -> None:
    with connect(port) as stream:
        stream.sendall(begun)
        response = read_response(stream)
        assert response.status == 408
        assert response.json["error"]["message"]
        assert ended(stream)


def test_the_headers_of_a_second_request_have_a_limit_too(port: int) -> None:
    with connect(port) as stream:
        stream.sendall(head("GET", "/v1/x", headers(port)))
        assert read_response(stream).status == 200
        stream.sendall(b"GET /")
        assert read_response(stream).status == 408


def test_a_connection_that_is_idle_between_requests_is_not_late(port: int) -> None:
    with connect(port) as stream:
        for _ in range(2):
            stream.sendall(head("GET", "/v1/x", headers(port)))
            assert read_response(stream).status == 200
            time.sleep(1.5)
        stream.sendall(head("GET", "/v1/x", headers(port)))
        assert read_response(stream).status == 200


def test_a_hundred_slow_senders_delay_nobody(port: int) -> None:
    slow = [connect(port) for _ in range(100)]
    try:
        for i, stream in enumerate(slow):
            stream.sendall(head("POST", "/v1/x", headers(port, content_length="9"))[: 20 + i])
        assert request(port, body={"a": 1}).status == 200
        # A sender of one byte now and then does not gain time by it.
        with pytest.raises(OSError):
            end = time.monotonic() + HANG_SECONDS
            while time.monotonic() < end:
                slow[0].sendall(b"x")
                time.sleep(0.1)
        assert {how_it_ended(stream) for stream in slow[1:]} <= {408, None}
    finally:
        for stream in slow:
            stream.close()


# ---- headers and connections ----


@pytest.mark.parametrize("size", [40_000, 1_000_000])
def test_headers_that_are_too_large_are_431(port: int, size: int) -> None:
    with connect(port) as stream:
        try:
            stream.sendall(head("GET", "/v1/x", headers(port, x_filler="x" * size)))
            response = read_response(stream)
        except ConnectionError:  # the server has closed before all was sent
            assert size > 500_000
            return
    assert response.status == 431
    assert response.json["error"]["type"] == "invalid_request_error"


def test_headers_of_a_sensible_size_are_read(port: int) -> None:
    assert request(port, headers={"x-filler": "x" * 20_000}).status == 200


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\r\n\r\n\x00", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_not_http_is_400(port: int, junk: bytes) -> None:
    with connect(port) as stream:
        stream.sendall(junk + b"\r\n\r\n")
        assert read_response(stream).status in (400, 403)


def test_too_many_connections_are_503_until_others_leave() -> None:
    with serving(echo, guarded(header_seconds=HANG_SECONDS, most_connections=20)) as port:
        open_now = [connect(port) for _ in range(20)]
        try:
            for stream in open_now:
                stream.sendall(b"G")
            with connect(port) as stream:
                response = read_response(stream)
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        finally:
            for stream in open_now:
                stream.close()
        end = time.monotonic() + HANG_SECONDS
        while request(port).status == 503 and time.monotonic() < end:
            time.sleep(0.05)
        assert request(port).status == 200


# ---- packets ----


def test_no_packet_waits_for_the_acknowledgement_of_the_one_before() -> None:
    """The headers and the body of an answer are two writes, and so is every piece of a stream."""
    seen: list[int] = []

    class Noted(GuardedProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            accepted = transport.get_extra_info("socket")
            seen.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    with serving(echo, Noted) as port:
        assert request(port).status == 200
    assert seen and all(seen)


# ---- what a client sends ahead ----


def test_requests_that_are_sent_together_are_answered_in_turn(port: int) -> None:
    with connect(port) as stream:
        stream.sendall(b"".join(head("GET", f"/v1/{i}", headers(port)) for i in range(5)))
        assert [read_one(stream) for _ in range(5)] == [f"/v1/{i}" for i in range(5)]


def read_one(stream: socket.socket) -> str:
    """Read one response and not a byte more; return the path that it tells."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += stream.recv(1)
    length = int(
        next(line for line in received.split(b"\r\n") if line.startswith(b"content-length")).split()[1]
    )
    body = b""
    while len(body) < length:
        body += stream.recv(length - len(body))
    path = json.loads(body)["path"]
    assert isinstance(path, str)
    return path


def test_a_client_that_sends_ahead_is_still_seen_to_leave() -> None:
    import threading

    from pophood.serve.guard.asgi import Receive, Scope, Send

    left = threading.Event()

    async def wait_for_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            await asyncio.sleep(0)
        left.set()

    for ahead in (b"\r\n", b"GET /v1/x HTTP/1.1\r\n", b"x" * 1000):
        left.clear()
        with serving(wait_for_the_end) as port:
            with connect(port) as stream:
                stream.sendall(head("GET", "/v1/x", headers(port)) + ahead)
                time.sleep(0.2)
            assert left.wait(HANG_SECONDS)
    assert AHEAD_BYTES < 1 << 20
