"""No file over 400 lines and no function over 60; a forward pass may reach 100."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.contracts.sources import functions_of, product_files, tracked_files

FILE_LINES = 400
FUNCTION_LINES = 60
FORWARD_LINES = 100
FORWARD_PASSES = {
    ("native/engine/engine.cpp", "compute"),
    ("src/pophood/train/model/transformer.py", "forward"),
}


def budget_of(path: Path, name: str) -> int:
    place = (path.relative_to(ROOT).as_posix(), name.split("::")[-1])
    return FORWARD_LINES if place in FORWARD_PASSES else FUNCTION_LINES


def test_no_file_is_over_its_budget() -> None:
    tests = [
        path for path in tracked_files() if path.suffix == ".py" and "tests" in path.relative_to(ROOT).parts
    ]
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in product_files() + tests}
    assert lengths
    over = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > FILE_LINES]
    assert not over


def test_no_function_is_over_its_budget() -> None:
    functions = [function for path in product_files() for function in functions_of(path)]
    assert functions
    over = [
        f"{f.path.relative_to(ROOT)}:{f.line} {f.name}: {f.lines} lines"
        for f in functions
        if f.lines > budget_of(f.path, f.name)
    ]
    assert not over


def test_the_counter_sees_functions_of_both_languages() -> None:
    python = "class A:\n    def long(self) -> None:\n" + "        x = 1\n" * 70
    assert [(f.name, f.lines) for f in functions_of(Path("a.py"), python)] == [("long", 71)]
    cpp = "\n".join(
        [
            "// int no() {",
            "namespace p {",
            "struct S {",
            "    int a = 0;",
            "    int get() const { return a; } // {",
            "};",
            "template <int N>",
            "void S::walk(",
            "    int n) noexcept {",
            '    for (;;) { puts("}"); }',
            "}",
            "} // p",
        ]
    )
    assert [(f.name, f.line, f.lines) for f in functions_of(Path("a.cpp"), cpp)] == [
        ("get", 5, 1),
        ("S::walk", 7, 5),
    ]


FORBIDDEN_FILES = {"utils.py", "common.py", "helpers.py", "base.py", "misc.py"}


def test_no_drawer_for_odds_and_ends() -> None:
    assert not [path.name for path in product_files() if path.name in FORBIDDEN_FILES]


@pytest.mark.parametrize("name", ["hasattr", "eval", "exec"])
def test_names_that_the_package_does_without(name: str) -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in product_files()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]
    assert not calls


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in product_files()
        if path.suffix == ".py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent
