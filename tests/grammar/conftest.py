"""Random models whose texts follow a grammar."""

from __future__ import annotations

from pathlib import Path

import pytest

import pophood
from tests.tiny import tiny_folder

WINDOW = 2_048


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("grammar") / "m", "qwen2", n_positions=WINDOW)


@pytest.fixture(scope="session")
def lm(folder: Path) -> pophood.LM:
    return pophood.load(folder)
