"""Loaded models for views: a small GPT-2 with the real vocabulary, a small untied Llama, and smollm2."""

from __future__ import annotations

from pathlib import Path

import pytest

import pophood
from tests.tiny import tiny_folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with random weights, four blocks, the real vocabulary and 128 positions."""
    return tiny_folder(tmp_path_factory.mktemp("look") / "small-gpt2", "gpt2", seed=3, n_layer=4)


@pytest.fixture(scope="session")
def small(small_folder: Path) -> pophood.LM:
    return pophood.load(small_folder)


@pytest.fixture(scope="session")
def rotary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights, three blocks, rotary positions, RMS norms and its own output matrix."""
    return tiny_folder(tmp_path_factory.mktemp("look") / "small-llama", "llama-untied", seed=3)


@pytest.fixture(scope="session")
def rotary(rotary_folder: Path) -> pophood.LM:
    return pophood.load(rotary_folder)


@pytest.fixture(scope="session")
def smol(smollm2: Path) -> pophood.LM:
    return pophood.load(smollm2, precision="f32")
