"""How memory becomes a window and blocks, and where a server listens."""

from __future__ import annotations

import socket

import pytest

from pophood.errors import BadInput, OutOfMemory, PophoodError
from pophood.serve.capacity import USUAL, Capacity, parse_size, plan_capacity
from pophood.serve.guard import listening
from pophood.serve.guard.listening import TRIES, Listening, is_loopback, listen, numeric

GIB = 1 << 30
PER_POSITION = 23_040  # SmolLM2's keys and values in f16
LOCAL = "127.0.0.1"


def test_usually_a_gibibyte_and_always_one_window() -> None:
    plan = plan_capacity(PER_POSITION, 8192, 16 * GIB)
    assert plan.context == 8192
    assert USUAL - 32 * PER_POSITION < plan.memory <= USUAL
    assert plan.memory == plan.blocks * 32 * PER_POSITION
    assert plan.tokens == plan.blocks * 32
    large = plan_capacity(PER_POSITION, 131_072, 16 * GIB)
    assert large == Capacity(131_072, 4096, 131_072 * PER_POSITION)


def test_at_most_half_of_what_is_free_and_a_window_that_fits() -> None:
    plan = plan_capacity(PER_POSITION, 131_072, 2 * GIB)
    assert plan.memory <= GIB
    assert plan.context == plan.tokens < 131_072
    assert plan_capacity(PER_POSITION, 8192, GIB).context == 8192


def test_what_the_user_wants_is_given_or_refused() -> None:
    assert plan_capacity(PER_POSITION, 8192, 16 * GIB, memory=GIB // 2).memory <= GIB // 2
    assert plan_capacity(PER_POSITION, 8192, 16 * GIB, memory=64 << 20).context == 91 * 32, (
        "the window is shortened"
    )
    assert plan_capacity(PER_POSITION, 8192, GIB, context=8192).context == 8192
    with pytest.raises(BadInput, match="--memory 180MiB or a smaller --context"):
        plan_capacity(PER_POSITION, 8192, 16 * GIB, memory=64 << 20, context=8192)
    with pytest.raises(BadInput, match="hold 0 tokens"):
        plan_capacity(PER_POSITION, 8192, 16 * GIB, memory=1000)
    with pytest.raises(OutOfMemory, match=r"2\.00 GiB, and 1\.00 GiB is free"):
        plan_capacity(PER_POSITION, 8192, GIB, memory=2 * GIB)
    with pytest.raises(OutOfMemory):
        plan_capacity(PER_POSITION, 131_072, GIB, context=131_072)


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("512M", 512 << 20), ("2GiB", 2 << 30), ("2 gb", 2 << 30), ("0.5k", 512)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1M", "1X", "M", "1e9", "inf", "\u0665M"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(BadInput, match="512M"):
        parse_size(text)


def test_a_port_that_is_taken_gives_the_next_one() -> None:
    with listen(LOCAL, 0).socket as first:
        port = first.getsockname()[1]
        second = listen(LOCAL, port)
        with second.socket:
            assert second.taken == port < second.port <= port + TRIES
            assert second.url == f"http://{LOCAL}:{second.port}"
            with socket.create_connection((LOCAL, second.port), timeout=60):
                pass  # it listens before anybody accepts


def test_all_ports_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "TRIES", 1)
    with listen(LOCAL, 0).socket as first, pytest.raises(PophoodError, match="are all taken"):
        listen(LOCAL, first.getsockname()[1])


def test_addresses() -> None:
    assert numeric("localhost") == numeric("LOCALHOST") == LOCAL
    assert numeric("::1") == "::1"
    for name in ("example.com", "", "127.1", "a b"):
        with pytest.raises(BadInput, match="--host"):
            numeric(name)
    assert [is_loopback(host) for host in (LOCAL, "::1", "0.0.0.0", "::", "192.168.0.1")] == [
        True,
        True,
        *[False] * 3,
    ]
    with pytest.raises(BadInput, match="no such address"):
        listen("192.0.2.1", 0)


def test_the_url_for_clients_on_this_machine() -> None:
    with socket.socket() as unused:
        assert Listening(unused, "0.0.0.0", 8321).url == "http://127.0.0.1:8321"
        assert Listening(unused, "::", 8321).url == "http://[::1]:8321"
        assert Listening(unused, "192.168.1.5", 8321).url == "http://192.168.1.5:8321"
