"""Redirects: which targets are allowed, and how addresses are parsed."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from pophood.errors import BadInput, PophoodError
from pophood.hub.net import connect
from pophood.hub.net.connect import Reach, Unreachable, reach_of, split_address
from pophood.hub.net.web import Login, Web, _redirect
from tests import processes
from tests.hub.fake_hub import FakeHub
from tests.processes import HANG_SECONDS

REACHES = {
    Reach.PUBLIC: ["8.8.8.8", "2606:4700::1111", "64.233.160.1"],
    Reach.PRIVATE: [
        "10.0.0.1",
        "172.16.5.5",
        "192.168.1.1",
        "100.64.0.1",
        "fd00::1",
        "::ffff:192.168.1.1",
        "192.0.2.1",
    ],
    Reach.LOOPBACK: ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "2002:7f00:1::"],
    Reach.NOWHERE: [
        "169.254.169.254",
        "fe80::1%eth0",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "::ffff:169.254.1.1",
    ],
}


@pytest.mark.parametrize(("reach", "address"), [(r, a) for r, many in REACHES.items() for a in many])
def test_reach(reach: Reach, address: str) -> None:
    assert reach_of(address) is reach


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make names resolve as the test says; only 127.0.0.1 is connected to."""
    known: dict[str, str] = {}

    def resolve(host: str, port: int, **kw: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known.get(host, host), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


@pytest.mark.parametrize(
    ("hub_is", "leads_to", "refused"),
    [
        ("PUBLIC", "PRIVATE", True),
        ("PUBLIC", "LOOPBACK", True),
        ("PRIVATE", "LOOPBACK", True),
        ("PUBLIC", "PUBLIC", False),
        ("PRIVATE", "PRIVATE", False),
        ("LOOPBACK", "PUBLIC", False),
        ("LOOPBACK", "LOOPBACK", False),
        ("LOOPBACK", "NOWHERE", True),
        ("PUBLIC", "NOWHERE", True),
    ],
)
def test_a_redirect_never_leads_to_a_more_private_place(
    hub: FakeHub,
    names: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    hub_is: str,
    leads_to: str,
    refused: bool,
) -> None:
    # Every name is really 127.0.0.1; this test decides which reach each one has.
    port = hub.server_address[1]
    names |= {"hub.test": "127.0.0.1", "other.test": "127.0.0.1"}
    order = iter([Reach[hub_is], Reach[leads_to]])
    monkeypatch.setattr(connect, "reach_of", lambda address: next(order))
    hub.add("owner/one", {"one.gguf": b"GGUF"})
    hub.wrong.location = f"http://other.test:{port}/cdn/owner/one/one.gguf"
    path = f"/owner/one/resolve/{hub.commit_of('owner/one')}/one.gguf"
    web = Web(f"http://hub.test:{port}")
    if refused:
        with (
            pytest.raises(
                PophoodError, match=rf"the hub redirects to http://other.test:{port}, which is .*: refused"
            ),
            web.get(path),
        ):
            pass
        assert hub.paths("/cdn/") == []
    else:
        with web.get(path) as answer:
            assert answer.read_all(100) == b"GGUF"


def test_every_address_of_a_name_is_checked(names: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    class Socket:
        def __init__(self, *a: Any) -> None: ...
        def settimeout(self, seconds: float) -> None: ...
        def close(self) -> None: ...
        def connect(self, address: Any) -> None:
            tried.append(address)
            raise ConnectionRefusedError("no")

    monkeypatch.setattr(socket, "socket", Socket)
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in ("10.0.0.1", "8.8.8.8", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
    with pytest.raises(PophoodError, match="refused"):
        connect.connect(split_address("http://cdn.test/"), Reach.PUBLIC, 1.0)
    assert tried == [("8.8.8.8", 80)]


def test_from_https_to_http_is_refused() -> None:
    with pytest.raises(
        PophoodError, match=r"redirects to 'http://cdn\.example/x', which is not encrypted: refused"
    ):
        _redirect("https://hub.example/a", "http://cdn.example/x")
    assert _redirect("https://hub.example/a/b", "/c?x=1") == "https://hub.example/c?x=1"
    assert _redirect("https://hub.example/a/b", "//cdn.example/c") == "https://cdn.example/c"
    assert _redirect("http://hub.example/a", "https://cdn.example/c") == "https://cdn.example/c"
    assert _redirect("http://hub.example/a", "/naïve file") == "http://hub.example/na%C3%AFve%20file"


@pytest.mark.parametrize(
    "endpoint",
    [
        "file:///etc",
        "ftp://x",
        "huggingface.co",
        "http://",
        "https://u:p@host",
        "https://host:0x1",
        "https://h/?q",
        "javascript:1",
    ],
)
def test_bad_endpoints(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(BadInput, match="wanted"):
        Web.from_environment()


def test_an_endpoint_may_have_a_path(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/mirror/hf/")
    with Web.from_environment().get("/api/models/x/y") as answer:
        assert answer.status == 404
    assert hub.paths() == ["/mirror/hf/api/models/x/y"]


def test_the_token_does_not_travel_in_the_clear(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], hub: FakeHub
) -> None:
    names["hub.test"] = "127.0.0.1"
    web = Web(f"http://hub.test:{hub.server_address[1]}", login=Login("hf_x", "HF_TOKEN"))
    with pytest.raises(BadInput, match="HF_TOKEN would be sent unencrypted"), web.get("/"):
        pass
    assert hub.asked == []


def test_a_proxy_is_used_but_not_for_redirects_to_this_machine(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{hub.server_address[1]}")
    monkeypatch.setenv("no_proxy", "")
    with Web("http://hub.example").get("/a?b=1") as answer:
        assert answer.status == 404
    method, path, headers = hub.asked[0]
    assert (method, path, headers["host"]) == ("GET", "http://hub.example/a?b=1", "hub.example")
    assert headers["proxy-authorization"].startswith("Basic ")
    with pytest.raises(PophoodError, match="this machine itself: refused"):
        connect.connect(split_address("http://127.0.0.1/x"), Reach.PUBLIC, 1.0)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(BadInput, match="wanted an http:// proxy"), Web("http://hub.example").get("/"):
        pass


def test_a_server_that_says_nothing_runs_into_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        web = Web(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        with pytest.raises(Unreachable, match=r"no answer.*timed out"), web.get("/"):
            pass


@pytest.mark.parametrize(
    "reply", [b"", b"\0\0\0", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"]
)
def test_what_is_not_http(reply: bytes) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        web = Web(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=HANG_SECONDS)
        with pytest.raises(Unreachable, match="no answer"), web.get("/"):
            pass
        thread.join()


def test_a_certificate_that_proves_nothing(tmp_path: Any) -> None:
    """A TLS server with its own certificate is refused, with advice for a company's proxy."""
    import shutil
    import ssl
    import threading

    from pophood.errors import NotFound
    from tests.needs import tool

    openssl = tool("openssl") if shutil.which("openssl") is None else "openssl"
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    processes.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            try:
                context.wrap_socket(peer, server_side=True).close()
            except OSError:
                peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        web = Web(f"https://localhost:{server.getsockname()[1]}", timeout=HANG_SECONDS)
        with (
            pytest.raises(NotFound, match=r"certificate is not valid .*SSL_CERT_FILE") as caught,
            web.get("/"),
        ):
            pass
        assert not isinstance(caught.value, Unreachable)
        thread.join()
