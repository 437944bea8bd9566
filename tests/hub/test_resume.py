"""Leftovers of an earlier attempt or revision are checked first, and no byte is fetched twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import NotFound
from tests.hub.fake_hub import FakeHub

DATA = b"GGUF" + bytes(range(256)) * 2000
SIZE = len(DATA)
NAME = "owner/one"


def started(hub: FakeHub, home: Path, after: int = 1000) -> Path:
    """Interrupt a pull after some bytes; return its part."""
    hub.add(NAME, {"one.gguf": DATA})
    hub.wrong.cuts = [after] + [0] * 10
    with pytest.raises(NotFound):
        pophood_hub.pull(NAME, announce=str)
    hub.wrong.cuts, hub.sent = [], 0
    hub.asked.clear()
    (part,) = home.rglob("*.part")
    return part


def pulled(force: bool = False) -> tuple[bytes, list[str]]:
    said: list[str] = []
    path = pophood_hub.pull(NAME, announce=said.append, force=force).path
    return path.read_bytes(), said


def a_full_part(part: Path) -> None:
    part.write_bytes(DATA)


def a_full_part_without_its_tag(part: Path) -> None:
    part.write_bytes(DATA)
    part.with_name(f"{part.name}.etag").unlink()


def the_whole_file(part: Path) -> None:
    part.rename(part.with_suffix(""))
    part.with_suffix("").write_bytes(DATA)


def the_whole_file_and_a_part(part: Path) -> None:
    part.with_suffix("").write_bytes(DATA)


@pytest.mark.parametrize(
    "left", [a_full_part, a_full_part_without_its_tag, the_whole_file, the_whole_file_and_a_part]
)
def test_what_is_whole_is_checked_and_not_fetched(
    left: Callable[[Path], None], hub: FakeHub, home: Path
) -> None:
    left(started(hub, home))
    data, said = pulled()
    assert (data, hub.sent) == (DATA, 0)
    assert said[0] == "owner/one: checking 512.0 kB that is here already"
    assert "fetching 512.0 kB (512.0 kB of it is here already)" in said[1]
    assert not hub.paths("/cdn/")
    assert not list(home.rglob("*.part*"))


def wrong_bytes(part: Path) -> None:
    part.write_bytes(bytes(SIZE))


def too_long(part: Path) -> None:
    part.write_bytes(DATA + b"more")


def a_wrong_whole_file(part: Path) -> None:
    part.with_suffix("").write_bytes(bytes(SIZE))
    part.unlink()


def a_short_whole_file(part: Path) -> None:
    part.with_suffix("").write_bytes(DATA[:-1])
    part.unlink()


@pytest.mark.parametrize("left", [wrong_bytes, too_long, a_wrong_whole_file])
def test_what_is_wrong_is_said_and_fetched_once(
    left: Callable[[Path], None], hub: FakeHub, home: Path
) -> None:
    left(started(hub, home))
    data, said = pulled()
    assert (data, hub.sent) == (DATA, SIZE)
    assert (
        said[1]
        == "owner/one: the copy of one.gguf here does not have the hash that the hub lists: fetching it again"
    )
    assert "is here already" not in said[2]


def test_a_short_whole_file_is_fetched(hub: FakeHub, home: Path) -> None:
    a_short_whole_file(started(hub, home))
    assert (pulled()[0], hub.sent) == (DATA, SIZE)


@pytest.mark.parametrize("here", [1, 1000, SIZE - 1])
def test_a_part_goes_on_where_it_stands(here: int, hub: FakeHub, home: Path) -> None:
    started(hub, home, after=here)
    data, said = pulled()
    assert (data, hub.sent) == (DATA, SIZE - here)
    assert len(said) == 1


def test_an_empty_part_is_no_help(hub: FakeHub, home: Path) -> None:
    started(hub, home).write_bytes(b"")
    assert (pulled()[0], hub.sent) == (DATA, SIZE)


def test_a_part_with_wrong_bytes_is_fetched_again(hub: FakeHub, home: Path) -> None:
    started(hub, home).write_bytes(bytes(1000))
    assert (pulled()[0], hub.sent) == (DATA, SIZE - 1000 + SIZE)


@pytest.mark.parametrize("here", [1000, SIZE])
def test_another_commit_with_the_same_weights_goes_on(here: int, hub: FakeHub, home: Path) -> None:
    part = started(hub, home)
    part.write_bytes(DATA[:here])
    assert part.with_name(f"{part.name}.etag").read_text() == f'"{hashlib.sha256(DATA).hexdigest()}"'
    hub.add(NAME, {"one.gguf": DATA, "README.md": b"a correction"})
    data, _ = pulled()
    assert (data, hub.sent) == (DATA, SIZE - here)


def test_another_commit_with_other_weights_starts_over(hub: FakeHub, home: Path) -> None:
    started(hub, home)
    other = DATA[:-1] + b"x"
    hub.add(NAME, {"one.gguf": other})
    assert (pulled()[0], hub.sent) == (other, SIZE)


def test_a_new_revision_fetches_what_is_new(hub: FakeHub, home: Path) -> None:
    weights = DATA[4:]
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": weights}
    old = hub.add(NAME, files)
    pophood_hub.pull(NAME, announce=str)
    new = hub.add(NAME, files | {"tokenizer.json": b'{"new": 1}'})
    hub.sent = 0
    found = pophood_hub.pull(NAME, revision="main", announce=str)
    assert (found.revision, hub.sent, old != new) == (new, 0, True)
    assert (found.path / "model.safetensors").read_bytes() == weights
    assert (found.path / "tokenizer.json").read_bytes() == b'{"new": 1}'
    (found.path / "model.safetensors").write_bytes(bytes(SIZE - 4))  # the person's disk fails
    hub.add(NAME, files)
    again = pophood_hub.pull(NAME, revision="main", announce=str)
    assert ((again.path / "model.safetensors").read_bytes(), hub.sent) == (weights, SIZE - 4)


def test_force_fetches_everything_again(hub: FakeHub, home: Path) -> None:
    a_full_part(started(hub, home))
    assert (pulled(force=True)[0], hub.sent) == (DATA, SIZE)
    hub.sent = 0
    assert (pulled(force=True)[0], hub.sent) == (DATA, SIZE)


def test_of_several_parts_only_what_is_missing(hub: FakeHub, home: Path) -> None:
    parts = {f"m-0000{i}-of-00003.gguf": DATA + bytes([i]) for i in (1, 2, 3)}
    hub.add(NAME, parts)
    hub.wrong.cuts = [SIZE + 1, SIZE + 1, 5000] + [0] * 10
    with pytest.raises(NotFound):
        pophood_hub.pull(NAME, announce=str)
    hub.wrong.cuts, hub.sent = [], 0
    found = pophood_hub.pull(NAME, announce=str)
    assert hub.sent == SIZE + 1 - 5000
    assert all((found.path.parent / name).read_bytes() == data for name, data in parts.items())


def test_a_pull_that_is_declined_leaves_no_empty_folder(hub: FakeHub, home: Path) -> None:
    hub.add(NAME, {"one.gguf": DATA})
    with pytest.raises(NotFound, match="as you chose"):
        pophood_hub.pull(NAME, announce=str, confirm=lambda question: False)
    assert not list((home / "models" / ".incoming").iterdir())
