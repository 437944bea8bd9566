"""Random models behind the app: one whose template is ChatML, one whose texts begin with a start token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pophood
from tests.serve.protocol.service import Service
from tests.test_adapters import random_adapter
from tests.tiny import tiny_folder

WINDOW = 256


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("serve") / "chatml", "qwen2", n_positions=WINDOW)


@pytest.fixture(scope="session")
def alone(chatml_folder: Path) -> pophood.LM:
    """Return the model of `service` on an engine of its own, for the same requests alone."""
    return pophood.load(chatml_folder)


@pytest.fixture(scope="session")
def service(chatml_folder: Path) -> Iterator[Service]:
    """Return the model behind the app, with two adapters."""
    lm = pophood.load(chatml_folder)
    adapters = {"one": random_adapter(lm, 1), "two": random_adapter(lm, 2)}
    with Service(lm, adapters=adapters) as service:
        yield service


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a model behind the app whose texts begin with a start token."""
    folder = tiny_folder(tmp_path_factory.mktemp("serve") / "llama", "llama", n_positions=WINDOW)
    with Service(pophood.load(folder)) as service:
        yield service


@pytest.fixture(scope="session")
def untemplated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a completion model behind the app: it has no chat template."""
    folder = tiny_folder(tmp_path_factory.mktemp("serve") / "gpt2", "gpt2", n_positions=WINDOW)
    with Service(pophood.load(folder)) as service:
        yield service
