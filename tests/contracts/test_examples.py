"""Every example in a docstring gives what it says."""

from __future__ import annotations

import doctest
import importlib
import re

import pytest

from tests.conftest import ROOT

SOURCE = ROOT / "src"
EXAMPLE = re.compile(r"^ +>>> (?!.*# doctest: \+SKIP)", re.MULTILINE)
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")  # not by git, which a copy of the tree lacks
    if EXAMPLE.search(path.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
