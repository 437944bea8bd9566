"""A studio with a tiny model, for all tests of a module. (small: fixtures)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.studio.server import StudioCommand, studio
from tests.tiny import tiny_folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small random llama."""
    return tiny_folder(tmp_path_factory.mktemp("studio") / "tiny", "llama", n_positions=1024)


@pytest.fixture(scope="module")
def running(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioCommand]:
    """Return a studio whose browser has entered."""
    with studio(tiny_model, home=tmp_path_factory.mktemp("home")) as running:
        yield running
