"""Fixtures of the course tests: the course, and one run of it on a model of GPT-2's shape."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood.course import Course, load_course
from tests.course.walked import Walked, walk
from tests.tiny import tiny_folder

SHAPE: dict[str, Any] = {
    "n_layer": 12,
    "n_head": 12,
    "n_kv_head": 12,
    "n_embd": 768,
    "head_dim": 64,
    "n_inner": 3072,
}


@pytest.fixture(scope="session")
def course() -> Course:
    return load_course("en")


@pytest.fixture(scope="session")
def gpt2_shaped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pophood.LM]:
    """Return a model with the sizes and the vocabulary of GPT-2 small, and random weights."""
    folder = tmp_path_factory.mktemp("course") / "gpt2"
    tiny_folder(folder, "gpt2", n_positions=1024, **SHAPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POPHOOD_MODELS", str(folder.parent))
        lm = pophood.load("gpt2", offline=True)
    assert lm.path == folder, "its weights are random"
    yield lm
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def walked(course: Course, gpt2_shaped: pophood.LM) -> dict[str, Walked]:
    """Run all pages but the training run and those that continue it (see test_fine_tuning_pages.py)."""
    return walk(course, gpt2_shaped, [page.name for page in course.pages if not (page.kept or page.earlier)])


@pytest.fixture(scope="session")
def small(smollm2: Path) -> pophood.LM:
    return pophood.load(smollm2, precision="f32")
