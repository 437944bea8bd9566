"""Interrupted and lying servers: the right hash or a clean failure, and never a visible partial model."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadFile, NotFound, PophoodError
from pophood.hub.net import connect, transfer, web
from tests import needs, processes
from tests.hub.fake_hub import FakeHub, gpt2_files

SIZE = 600_000
DATA = random.Random(7).randbytes(SIZE)
NAME = "owner/one"


def quiet(line: str) -> None:
    pass


@pytest.fixture
def one(hub: FakeHub) -> FakeHub:
    """Start a hub with one GGUF file of random bytes."""
    hub.add(NAME, {"one.gguf": DATA})
    return hub


def pull(**more: Any) -> bytes:
    return pophood_hub.pull(NAME, announce=quiet, **more).path.read_bytes()


def nothing_in_sight(home: Path) -> bool:
    """Check that no model is listed, and the store has only folders whose names begin with a dot."""
    seen = [path for path in (home / "models").glob("*") if not path.name.startswith(".")]
    return not seen and pophood_hub.list_models() == []


def test_cut_at_100_offsets(one: FakeHub, home: Path) -> None:
    offsets = [*random.Random(1).sample(range(SIZE), 97), 0, 1, SIZE - 1]
    for offset in offsets:
        one.sent, one.wrong.cuts = 0, [offset]
        assert pull() == DATA
        assert one.sent <= SIZE + transfer.CHUNK
        pophood_hub.remove(NAME)
    assert nothing_in_sight(home)


def test_cut_a_hundred_times_in_one_download(one: FakeHub) -> None:
    one.wrong.cuts = [SIZE // 101] * 100
    assert pull() == DATA
    assert one.sent <= SIZE + transfer.CHUNK
    assert len(one.paths("/cdn/")) == 101


def test_a_second_attempt_goes_on_where_the_first_gave_up(one: FakeHub, home: Path) -> None:
    one.wrong.cuts = [400_000] + [0] * 10
    with pytest.raises(connect.Unreachable, match=r"the connection broke at 400,000 of 600,000 bytes"):
        pull()
    assert nothing_in_sight(home)
    one.wrong.cuts, one.sent = [], 0
    said: list[str] = []
    assert pophood_hub.pull(NAME, announce=said.append).path.read_bytes() == DATA
    assert one.sent == 200_000
    assert "400.0 kB of it is here already" in said[0]


def test_without_range_it_starts_over(one: FakeHub) -> None:
    one.wrong.ranges, one.wrong.cuts = False, [400_000]
    assert pull() == DATA
    assert one.sent == 400_000 + SIZE


def test_without_range_and_always_cut_it_gives_up(one: FakeHub, home: Path) -> None:
    one.wrong.ranges, one.wrong.cuts = False, [400_000] * 50
    with pytest.raises(connect.Unreachable):
        pull()
    assert len(one.paths("/cdn/")) == 1 + web.Web("").attempts
    assert nothing_in_sight(home)


def test_a_changed_etag_starts_over(one: FakeHub) -> None:
    one.wrong.cuts, one.wrong.etags = [400_000], ["old", "new", "new"]
    assert pull() == DATA
    ranged = [headers for _, path, headers in one.asked if "range" in headers and path.startswith("/cdn/")]
    assert ranged[0]["if-range"] == '"old"'
    assert one.sent == 400_000 + SIZE  # If-Range failed, so the hub sent everything


def test_a_changed_etag_on_a_206_is_noticed_too(one: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    one.wrong.cuts, one.wrong.etags = [400_000], ["old", "new", "new"]
    one.wrong.if_range = False  # a server that answers 206 whatever If-Range says
    assert pull() == DATA
    assert one.sent == 400_000 + 200_000 + SIZE


@pytest.mark.parametrize(
    "content_range", ["bytes 7-599999/600000", "bytes 400000-700000/700001", "nonsense", ""]
)
def test_a_wrong_content_range_starts_over(one: FakeHub, content_range: str) -> None:
    one.wrong.cuts, one.wrong.content_range = [400_000], content_range or "bytes"
    assert pull() == DATA
    assert len(one.paths("/cdn/")) == 3  # cut, refused, whole


def flipped(path: str, data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_one_flipped_bit_is_found(one: FakeHub, home: Path) -> None:
    one.wrong.body = flipped
    with pytest.raises(
        BadFile, match=r"owner/one: one.gguf arrived twice with a hash that differs from the hub's list"
    ):
        pull()
    assert nothing_in_sight(home)
    assert not list(home.rglob("*.part"))


def test_one_flipped_bit_in_a_small_file_is_found(hub: FakeHub, home: Path) -> None:
    def lie(content: dict[str, Any]) -> dict[str, Any]:
        for entry in content["siblings"]:
            if entry["rfilename"] == "tokenizer.json":
                entry["blobId"] = "0" * 40
        return content

    hub.add("openai-community/gpt2", gpt2_files())
    hub.wrong.listing = lie
    with pytest.raises(BadFile, match=r"tokenizer.json arrived twice with a hash"):
        pophood_hub.pull("gpt2", announce=quiet)
    assert nothing_in_sight(home)


def test_a_flipped_bit_that_goes_away_is_fetched_again(one: FakeHub) -> None:
    times: list[int] = []

    def once(path: str, data: bytes) -> bytes:
        times.append(1)
        return flipped(path, data) if len(times) == 1 else data

    one.wrong.body = once
    assert pull() == DATA


def test_a_part_that_went_bad_on_disk_is_fetched_again(one: FakeHub, home: Path) -> None:
    one.wrong.cuts = [400_000] + [0] * 10
    with pytest.raises(connect.Unreachable):
        pull()
    part = next(home.rglob("*.part"))
    part.write_bytes(flipped("", part.read_bytes()))
    one.wrong.cuts = []
    assert pull() == DATA


def longer(path: str, data: bytes) -> bytes:
    return data + b"more"


def shorter(path: str, data: bytes) -> bytes:
    return data[:-1]


Spoil = Callable[[FakeHub], None]


def wrong(**values: Any) -> Spoil:
    def spoil(hub: FakeHub) -> None:
        for name, value in values.items():
            setattr(hub.wrong, name, value)

    return spoil


def to(location: str) -> Spoil:
    return wrong(location=location)


CLEAN_FAILURES: dict[str, tuple[Spoil, type[PophoodError], str]] = {
    "too long": (wrong(body=longer), BadFile, r"the answer has 600004 bytes, wanted 600,000"),
    "too long, unsaid": (
        wrong(body=longer, say_length=False),
        BadFile,
        r"more bytes arrive than the 600,000 that",
    ),
    "too short": (wrong(body=shorter), BadFile, r"the answer has 599999 bytes, wanted 600,000"),
    "too short, unsaid": (wrong(body=shorter, say_length=False), NotFound, r"the file changed on the way"),
    "linked size": (wrong(linked_size=5), BadFile, r"the hub says 5 bytes here, but 600000 in its list"),
    "commit": (wrong(commit="f" * 40), PophoodError, r"answers for commit f{40}, wanted"),
    "compressed": (wrong(encoding="gzip"), PophoodError, r"encoded as 'gzip', wanted plain bytes"),
    "always 500": (wrong(file_status=500), connect.Unreachable, r"answered 500 for owner/one"),
    "too many": (wrong(file_status=429), connect.Unreachable, r"answered 429"),
    "404": (
        wrong(file_status=404, error_code="EntryNotFound"),
        NotFound,
        r"no such model|has no file one.gguf",
    ),
    "gated": (
        wrong(api_status=403, error_code="GatedRepo"),
        NotFound,
        r"accept their terms: do so at http.*HF_TOKEN",
    ),
    "401": (wrong(api_status=401), NotFound, r"no such model, or a private one: .* set HF_TOKEN"),
    "418": (wrong(api_status=418), NotFound, r"answered 418, wanted 200"),
    "file:": (to("file:///etc/passwd"), PophoodError, r"redirects to 'file:///etc/passwd', wanted an http"),
    "ftp:": (to("ftp://127.0.0.1/x"), PophoodError, r"redirects to 'ftp:.*refused"),
    "password": (to("http://me:you@localhost/x"), PophoodError, r"redirects to .*refused"),
    "no location": (to(" "), PophoodError, r"redirects in circles"),
    "metadata": (
        to("http://169.254.169.254/latest"),
        PophoodError,
        r"169.254.169.254, which is a local address",
    ),
    "unspecified": (to("http://0.0.0.0/x"), PophoodError, r"0.0.0.0, which is a local address: refused"),
    "newline": (to("http://localhost/a%0d%0aHost: x"), PophoodError, r"no answer|not reached|broke|refused"),
    "list is no JSON": (
        wrong(listing=lambda c: "x"),
        BadFile,
        r"something other than a list of a model's files",
    ),
    "list of nothing": (
        wrong(listing=lambda c: []),
        BadFile,
        r"something other than a list of a model's files",
    ),
    "commit is a path": (
        wrong(listing=lambda c: c | {"sha": "../../x"}),
        BadFile,
        r"something other than a list of a model's files",
    ),
    "deep": (wrong(listing=lambda c: deep()), BadFile, r"something other than a list of a model's files"),
    "negative size": (
        wrong(listing=lambda c: sizes(c, -1)),
        BadFile,
        r"something other than a list of a model's files",
    ),
    "huge size": (
        wrong(listing=lambda c: sizes(c, 1 << 41)),
        PophoodError,
        r"disk is too full: needed 2,199,",
    ),
    "size is text": (
        wrong(listing=lambda c: sizes(c, "9")),
        BadFile,
        r"something other than a list of a model's files",
    ),
}


def sizes(content: dict[str, Any], size: Any) -> dict[str, Any]:
    for entry in content["siblings"]:
        entry["lfs"]["size"] = size
    return content


def deep() -> Any:
    class Deep(dict[str, Any]):
        pass

    return {"sha": "a" * 40, "siblings": [{"rfilename": 7}]}


@pytest.mark.parametrize("kind", CLEAN_FAILURES)
def test_a_lying_server_is_a_clean_failure(kind: str, one: FakeHub, home: Path) -> None:
    spoil, error, words = CLEAN_FAILURES[kind]
    spoil(one)
    with pytest.raises(error, match=words) as caught:
        pull()
    assert "\n" not in str(caught.value)
    assert nothing_in_sight(home)
    one.wrong = type(one.wrong)()
    assert pull() == DATA


def test_500_then_ok(one: FakeHub) -> None:
    one.wrong.statuses = [500, 503, 200, 502, 429, 200, 200]
    assert pull() == DATA


def test_an_expired_signature_is_asked_for_again(one: FakeHub) -> None:
    one.wrong.statuses = [200, 200, 403, 200, 200]  # list, resolve, cdn: expired; resolve, cdn
    assert pull() == DATA


def test_an_unknown_model(hub: FakeHub) -> None:
    with pytest.raises(NotFound, match=r"owner/none: no such model at http://127.0.0.1:\d+: check the name"):
        pophood_hub.pull("owner/none", announce=quiet)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "FIRST_PAUSE", 0.0)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(connect.Unreachable, match=r"127.0.0.1: not reached \(.*refused"):
        pull()
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    with pytest.raises(connect.Unreachable, match=r"no such host, or no network"):
        pull()


PULL = """
import sys
from pophood import hub
print("started", flush=True)
hub.pull(sys.argv[1], announce=lambda line: None)
"""


def test_a_killed_pull_leaves_nothing_in_sight_and_goes_on(one: FakeHub, home: Path) -> None:
    needs.linux()
    rng = random.Random(3)
    one.add(NAME, {"one.gguf": DATA * 20})
    slow = threading.Event()

    def slowly(path: str, data: bytes) -> bytes:
        slow.wait(0.05)
        return data

    one.wrong.body = slowly
    for _ in range(8):
        with processes.started([sys.executable, "-c", PULL, NAME], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.25))
            child.send_signal(signal.SIGKILL)
        here = pophood_hub.list_models()
        assert all(model.path.read_bytes() == DATA * 20 for model in here)
        if here:
            pophood_hub.remove(NAME)
    assert pull() == DATA * 20
    assert json.loads((home / "models/owner/one/pophood.json").read_text())["name"] == NAME
    assert list((home / "models/.incoming").iterdir()) == []
