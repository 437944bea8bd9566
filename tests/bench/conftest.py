"""A small loaded model for benchmarks, which read a small array instead of a gigabyte."""

from __future__ import annotations

import pytest

import pophood
from pophood.bench import measure
from tests.tiny import tiny_gguf


@pytest.fixture(scope="session")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    path = tmp_path_factory.mktemp("bench") / "small.gguf"
    tiny_gguf(path, "llama")
    return pophood.load(path, threads=2)


@pytest.fixture(autouse=True)
def small_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "READ_BYTES", 1 << 22)


def assert_no_sequence(lm: pophood.LM) -> None:
    """Check that every sequence of the engine was dropped."""
    with lm.engine.sequence() as newest:
        for sequence in range(newest):
            with pytest.raises(IndexError):
                lm.engine.length(sequence)
