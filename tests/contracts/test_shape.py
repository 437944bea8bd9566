"""The shape of the tree: sizes of files and folders, one module for each class name, no import cycle."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

from tests.conftest import ROOT
from tests.contracts.sources import product_files

LEAST_LINES = 60
REASON = re.compile(r"\(small: [^)]+\)")
FOLDER_FILES = 14
COLLECTIONS = {  # folders with one thing of a kind in each file
    "src/pophood/look/views",
    "src/pophood/look/figures",
    "src/pophood/cli/commands",
    "src/pophood/families",
    "src/pophood/course/en",
    "src/pophood/course/es",
    "native/kernels",
}


def first_line(path: Path) -> str:
    """Return the first line of a Python file's docstring, or of a C++ file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    return text.partition("\n")[0]


def small_files() -> list[str]:
    """Return files under 60 lines whose first line gives no reason."""
    return [
        path.relative_to(ROOT).as_posix()
        for path in product_files()
        if path.name != "__init__.py"
        and path.read_text(encoding="utf-8").count("\n") < LEAST_LINES
        and not REASON.search(first_line(path))
    ]


def large_folders() -> list[str]:
    """Return folders of more than 14 source files, without the collections."""
    files: defaultdict[str, int] = defaultdict(int)
    for path in product_files():
        files[path.parent.relative_to(ROOT).as_posix()] += path.name != "__init__.py"
    return [folder for folder, n in files.items() if n > FOLDER_FILES and folder not in COLLECTIONS]


def repeated_class_names() -> list[str]:
    """Return class names that more than one module defines."""
    modules: defaultdict[str, set[Path]] = defaultdict(set)
    for path in product_files():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    modules[node.name].add(path)
    return [name for name, paths in modules.items() if len(paths) > 1]


def modules_in_cycles(imports: dict[str, set[str]]) -> list[str]:
    """Return modules that import themselves, directly or through others."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(imports[start])
        while waiting:
            if (module := waiting.pop()) not in seen:
                seen.add(module)
                waiting += imports[module]
        return seen

    return [module for module in imports if module in reachable(module)]


def cyclic_modules() -> list[str]:
    """Return the modules in a cycle; imports inside functions and for types count."""
    graph = grimp.build_graph("pophood", exclude_type_checking_imports=False, cache_dir=None)
    surface = "pophood"  # imports every public name, on first use
    imports = {
        module: graph.find_modules_directly_imported_by(module) for module in graph.modules - {surface}
    }
    return modules_in_cycles({module: names - {surface} for module, names in imports.items()})


@pytest.mark.parametrize(
    ("rule", "offenders"),
    [
        ("small_files", small_files()),
        ("large_folders", large_folders()),
        ("repeated_class_names", repeated_class_names()),
        ("cyclic_modules", cyclic_modules()),
    ],
    ids=["small_files", "large_folders", "repeated_class_names", "cyclic_modules"],
)
def test_the_shape_holds(rule: str, offenders: list[str]) -> None:
    assert not offenders, rule


def test_a_cycle_is_noticed() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": set[str]()}
    assert modules_in_cycles(imports) == ["b", "c", "d"]
