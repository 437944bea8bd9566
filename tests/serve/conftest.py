"""A tiny model, its worker, and what the worker says. (small: fixtures)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pophood
from tests.serve.workers import CONTEXT, Talk
from tests.test_adapters import random_adapter
from tests.tiny import tiny_folder


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small random llama with a window of 4,096 tokens."""
    return tiny_folder(tmp_path_factory.mktemp("serve") / "tiny", "llama", n_positions=CONTEXT)


@pytest.fixture(scope="session")
def lm(tiny_chat: Path) -> pophood.LM:
    """Return the model, for answers of requests alone."""
    return pophood.load(tiny_chat)


@pytest.fixture
def talk(tiny_chat: Path) -> Iterator[Talk]:
    """Return a worker on an engine of its own, with two adapters; it has ended after the test."""
    own = pophood.load(tiny_chat)
    adapters = {"one": random_adapter(own, 1), "two": random_adapter(own, 2)}
    with Talk(own, adapters) as talk:
        yield talk
