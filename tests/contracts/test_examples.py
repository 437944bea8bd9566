"""Every example in a docstring gives what it says."""

from __future__ import annotations

import doctest
import importlib
import re

import pytest

from tests.conftest import ROOT
from tests.contracts.sources import product_files

SOURCE = ROOT / "src"
EXAMPLE = re.compile(r"^ +>>> (?!.*# doctest: \+SKIP)", re.MULTILINE)
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in product_files()
    if path.suffix == ".py" and EXAMPLE.search(path.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
