"""Doctests: runs every `>>>` of the package in its own module."""

from __future__ import annotations

import ast
import doctest
import importlib

import pytest

from tests.conftest import ROOT
from tests.contracts.sources import product_files

SOURCE = ROOT / "src"


def modules_with_examples() -> list[str]:
    """Return the modules whose source has a doctest prompt."""
    return [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in product_files()
        if path.suffix == ".py" and ">>> " in path.read_text(encoding="utf-8")
    ]


def examples_in_source(module: str) -> int:
    """Count the examples in the docstrings of a module's source, including those that doctest misses."""
    path = SOURCE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    parser = doctest.DocTestParser()
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, owners)
    ]
    return sum(len(parser.get_examples(text)) for text in docstrings)


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted == examples_in_source(name), (
        "doctest skips an example, or does not look where it stands"
    )


def test_a_false_example_is_noticed() -> None:
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "false", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None).failed == 1
