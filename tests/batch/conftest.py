"""A small chat model with two adapters, and a completion model whose texts begin with a start token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pophood
from tests.test_adapters import random_adapter
from tests.tiny import tiny_folder

WINDOW = 128


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("batch") / "model", "qwen2", n_positions=WINDOW)


@pytest.fixture(scope="session")
def lm(folder: Path) -> pophood.LM:
    """Return the model that answers lines."""
    lm = pophood.load(folder)
    lm.use_adapters([(replace(random_adapter(lm, i), name=name), 0.5) for i, name in enumerate("ab")])
    return lm


@pytest.fixture(scope="session")
def alone(folder: Path) -> pophood.LM:
    """Return the same model on an engine of its own, for the same requests alone."""
    return pophood.load(folder)
