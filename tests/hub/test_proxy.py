"""A proxy that does not work is named, with the variable that chose it; the hub is not blamed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pophood import hub as pophood_hub
from pophood.errors import NotFound
from pophood.hub import resolve as choice
from pophood.hub.net.connect import ProxyFailed
from tests.hub.fake_hub import FakeHub
from tests.hub.test_choice import fetched as fetched


@contextmanager
def proxy(reply: bytes | None) -> Iterator[str]:
    """Run a proxy that answers every request so, or closes every connection (b""); None runs no proxy."""
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    if reply is None:
        server.close()
        yield address
        return
    server.settimeout(0.05)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                client, _ = server.accept()
            except TimeoutError:
                continue
            with client:
                client.settimeout(2)
                client.recv(4096)
                client.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        ended.set()
        thread.join()
        server.close()


BROKEN: list[tuple[bytes | None, str]] = [
    (None, "refused"),
    (b"", "closed|end|disconnected|empty"),
    (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "407"),
    (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"),
    (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
]


@pytest.mark.parametrize(("reply", "reason"), BROKEN)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_broken_proxy_is_named(
    scheme: str, reply: bytes | None, reason: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{scheme}://hub.example")
    monkeypatch.setenv("no_proxy", "")
    with proxy(reply) as address:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@{address}")
        with pytest.raises(ProxyFailed) as error:
            pophood_hub.pull("owner/name", announce=str)
    text = str(error.value)
    assert f"owner/name: the proxy {address} does not reach hub.example (" in text
    assert f"correct or unset {scheme.upper()}_PROXY" in text and "NO_PROXY" in text
    assert "HF_ENDPOINT" not in text and "secret" not in text and "\n" not in text
    assert any(word in text for word in reason.split("|")), text


def test_a_proxy_whose_name_means_nothing(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: Any, **more: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("https_proxy", "proxy.nowhere:3128")
    with pytest.raises(
        NotFound, match=r"the proxy proxy.nowhere:3128 does not reach hub.example \(.*not known"
    ):
        pophood_hub.pull("owner/name", announce=str)


def test_a_host_of_no_proxy_is_reached_all_the_same(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("owner/one", {"one.gguf": b"GGUF"})
    with proxy(None) as address:
        monkeypatch.setenv("http_proxy", f"http://{address}")
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        assert pophood_hub.pull("owner/one", announce=str).path.read_bytes() == b"GGUF"


def test_the_first_start_blames_the_proxy_too(
    hub: FakeHub, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "PROBE_SECONDS", 5.0)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setenv("no_proxy", "")
    said: list[str] = []
    agree: Callable[[str], bool] = lambda question: True  # noqa: E731
    with proxy(None) as address:
        monkeypatch.setenv("https_proxy", address)
        assert pophood_hub.locate(announce=said.append, confirm=agree).name == "smollm2"
    assert f"no model is here yet: gpt2: the proxy {address} does not reach hub.example" in said[0].replace(
        "openai-community/", ""
    )
    assert not any("did not answer within" in line for line in said)
