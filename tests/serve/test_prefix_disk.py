"""Stored prefixes in a worker: answers keep their bits, whatever is in the folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.model.identity import kv_identity
from pophood.model.prefix_files import CHUNK, PrefixFiles
from pophood.serve.messages import Begun, Ended, Failed, PromptScored, Tokens
from tests.processes import HANG_SECONDS
from tests.serve.workers import Talk
from tests.test_adapters import random_adapter

DRAW = np.random.default_rng(5)
SYSTEM = [int(i) for i in DRAW.integers(3, 400, 3 * CHUNK + 17)]
WHOLE = 3 * CHUNK


@contextmanager
def worker(model: Path, folder: Path, limit: int = 1 << 30, **wishes: Any) -> Iterator[Talk]:
    """Return a worker of an engine of its own that keeps prefixes; `said` are its lines."""
    lm = pophood.load(model, kv=wishes.pop("kv", "auto"))
    said: list[str] = []
    size = CHUNK * lm.engine.position_bytes
    of_windows = CHUNK * lm.engine.windowed_bytes
    files = PrefixFiles(folder, kv_identity(lm), size, limit, of_windows=of_windows, say=said.append)
    adapters = {"one": random_adapter(lm, 1), "two": random_adapter(lm, 2)}
    with Talk(lm, adapters, files=files, **wishes) as talk:
        talk.said = said
        yield talk


def asked(talk: Talk, prompt: list[int], **values: Any) -> tuple[int, list[int]]:
    """Return how many tokens of a prompt were found, and the tokens of the answer."""
    number = talk.ask(prompt, **values)
    begun = next(event for event in talk.until(number) if isinstance(event, Begun))
    assert isinstance(talk.events(number)[-1], Ended)
    return begun.cached, talk.ids(number)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.prefix"))


def until_stored(folder: Path, count: int) -> None:
    end = time.monotonic() + HANG_SECONDS
    while len(files_of(folder)) < count and time.monotonic() < end:
        time.sleep(0.01)
    assert len(files_of(folder)) == count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("kv", ["f32", "f16", "q8"])
def test_a_prompt_survives_a_restart_with_the_same_bits(tiny_chat: Path, folder: Path, kv: Any) -> None:
    prompt = [*SYSTEM, 7, 8, 9]
    with worker(tiny_chat, folder, kv=kv) as talk:
        cold = asked(talk, prompt)
        assert not files_of(folder), "what comes once is not written while it runs"
    assert len(files_of(folder)) == 3
    with worker(tiny_chat, folder, kv=kv) as talk:
        assert asked(talk, prompt) == (WHOLE, cold[1])
        assert asked(talk, [*SYSTEM, 5], scores=1)[0] == 0, "scores are not stored"
        assert not talk.said


def test_what_is_used_twice_is_written_at_once(tiny_chat: Path, folder: Path) -> None:
    with worker(tiny_chat, folder) as talk:
        for last in (7, 8):
            asked(talk, [*SYSTEM, last])
        until_stored(folder, 3)


def test_adapters_have_prefixes_of_their_own(tiny_chat: Path, folder: Path) -> None:
    prompt = [*SYSTEM, 7]
    ways: list[Any] = [(), (("one", 1.0),), (("one", 0.5),), (("one", 1.0), ("two", 1.0))]
    with worker(tiny_chat, folder) as talk:
        cold = [asked(talk, prompt, adapters=way)[1] for way in ways]
    assert len(files_of(folder)) == 12
    with worker(tiny_chat, folder) as talk:
        for way, ids in reversed(list(zip(ways, cold, strict=True))):
            assert asked(talk, prompt, adapters=way) == (WHOLE, ids)
        assert asked(talk, prompt, adapters=(("two", 1.0),))[0] == 0


def test_another_model_or_kind_of_keys_finds_nothing(tiny_chat: Path, folder: Path) -> None:
    with worker(tiny_chat, folder, kv="f32") as talk:
        asked(talk, SYSTEM)
    with worker(tiny_chat, folder, kv="f16") as talk:
        assert asked(talk, SYSTEM)[0] == 0
        assert not talk.said
    assert len(files_of(folder)) == 6


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("kind", ["flip", "cut", "swap", "gone"])
def test_a_damaged_file_costs_its_tokens_and_one_line(
    tiny_chat: Path, folder: Path, number: int, kind: str
) -> None:
    with worker(tiny_chat, folder) as talk:
        cold = asked(talk, [*SYSTEM, 7])[1]
        assert talk.files is not None
        chunks = talk.files.chunks(SYSTEM)
    path, other = (folder / chunks[i].name for i in (number, (number + 1) % 3))
    content = path.read_bytes()
    if kind == "gone":
        path.unlink()
    else:
        flipped = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
        path.write_bytes({"flip": flipped, "cut": content[:-1], "swap": other.read_bytes()}[kind])
    with worker(tiny_chat, folder) as talk:
        assert asked(talk, [*SYSTEM, 7]) == (number * CHUNK, cold)
        assert asked(talk, [*SYSTEM, 7])[1] == cold
        assert [str(path) in line for line in talk.said] == ([] if kind == "gone" else [True])
    assert path.read_bytes() == content, "it is written anew"


def test_many_requests_with_one_beginning_and_little_room(tiny_chat: Path, folder: Path) -> None:
    """Prefixes are read while requests of other beginnings need every block."""
    with worker(tiny_chat, folder) as talk:
        starts = [[*SYSTEM[i:], *SYSTEM[:i]] for i in range(6)]
        cold = [asked(talk, start)[1] for start in starts]
    with worker(tiny_chat, folder, blocks=30, together=4, waiting=32) as talk:
        numbers = [(i, talk.ask(starts[i], client=i)) for _ in range(3) for i in range(6)]
        for i, number in numbers:
            assert isinstance(talk.until(number)[-1], Ended)
            assert talk.ids(number) == cold[i]
        assert talk.settle().blocks_used <= 30
        assert not talk.said


def test_a_request_that_is_cancelled_or_refused_while_it_is_read(tiny_chat: Path, folder: Path) -> None:
    with worker(tiny_chat, folder) as talk:
        asked(talk, SYSTEM)
    with worker(tiny_chat, folder) as talk:
        for _ in range(5):
            talk.cancel(talk.ask(SYSTEM))
        assert asked(talk, [*SYSTEM, 7])[0] == WHOLE
        talk.settle()
    with worker(tiny_chat, folder) as talk:
        number = talk.ask(SYSTEM)  # the end comes at once
    assert not [event for event in talk.events(number) if isinstance(event, Tokens | PromptScored)]


def test_a_folder_that_cannot_be_written_costs_one_line(
    tiny_chat: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pophood.model.prefix_files.rename", full)
    with worker(tiny_chat, folder) as talk:
        for last in (7, 8, 9):
            asked(talk, [*SYSTEM, last])
        end = time.monotonic() + HANG_SECONDS
        while not talk.said and time.monotonic() < end:
            time.sleep(0.01)
        assert asked(talk, [*SYSTEM, 7])[0] > 0
    assert len(talk.said) == 1 and "No space left" in talk.said[0]
    assert not list(folder.iterdir())


def test_the_folder_holds_no_more_than_it_may(tiny_chat: Path, folder: Path) -> None:
    with worker(tiny_chat, folder) as talk:
        asked(talk, SYSTEM)
    size = files_of(folder)[0].stat().st_size
    with worker(tiny_chat, folder, limit=4 * size) as talk:
        asked(talk, SYSTEM[::-1])
    assert len(files_of(folder)) == 4
    with worker(tiny_chat, folder) as talk:
        assert asked(talk, SYSTEM[::-1])[0] == WHOLE
        failed = [event for event in talk.events(1) if isinstance(event, Failed)]
        assert not failed and asked(talk, SYSTEM)[0] == CHUNK


def test_a_prompt_with_attention_windows_survives_a_restart(
    tiny_chat: Path, folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "windowed"
    shutil.copytree(tiny_chat, model)
    config = json.loads((model / "config.json").read_text())
    config = {key: value for key, value in config.items() if not key.endswith(("_bias", "_tp"))}
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 48}
    (model / "config.json").write_text(json.dumps(config))
    prompt = [*SYSTEM, 7, 8, 9]
    with worker(model, folder) as talk:
        cold = asked(talk, prompt)
    sizes = {path.stat().st_size for path in files_of(folder)}
    assert (len(files_of(folder)), len(sizes)) == (3, 2), "what is freed is left out"
    with worker(model, folder) as talk:
        assert asked(talk, prompt) == (WHOLE, cold[1])
        assert asked(talk, [*SYSTEM[:200], 5])[0] == 0
        assert not talk.said
