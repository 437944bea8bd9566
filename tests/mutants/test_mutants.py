"""The tool behind `make mutants`: the changes it makes, how it finds them again, that it puts files back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.contracts.sources import product_files
from tests.mutants.__main__ import FOLDER, Area, Changed, Results, table
from tests.mutants.cpp_points import cpp_mutants
from tests.mutants.mutant import Mutant, shuffled
from tests.mutants.python_points import python_mutants
from tests.mutants.tree import Tree

PYTHON = '''"""Words."""
def area(a: int | None, b: float = 2.0, *, c: bool = True) -> float:
    if a is None or not c:  # é
        raise ValueError(f"got {a + 1}")
    log(a)
    return max(a - 1, b, key=abs) * 3
'''
CPP = """// a + b
#include <vector>
int f(std::vector<int> v, int* p) {
    if (v.size() < 3 && !p) throw std::invalid_argument("x + 1");
    for (int i = 0; i <= 2; ++i) sum.add(p[i] * 2);
    v.clear();
    return "a + b"[0] - 0x10;
}
"""


def changes(mutants: Any) -> set[tuple[str, str]]:
    return {(mutant.before, mutant.after) for mutant in mutants}


def test_changes_to_python() -> None:
    assert changes(python_mutants("a.py", PYTHON)) == {
        ("2.0", "4.0"), ("True", "False"), ("a is None or not c", "not (a is None or not c)"),
        ("is", "is not"), ("or", "and"), ("not ", ""), ("log(a)", "pass"), ("max", "min"), ("-", "+"),
        ("1", "2"), ("key=abs", ""), ("*", "/"), ("3", "4"),
    }  # fmt: skip


def test_changes_to_cpp() -> None:
    assert changes(cpp_mutants("a.cpp", CPP)) == {
        ("0", "1"), ("<=", "<"), ("2", "3"), ("++", "--"), ("*", "/"), ("v.clear()", ""), ("-", "+"),
        ("0x10", "0x11"),
    }  # fmt: skip


def test_a_change_is_found_again_in_a_later_version() -> None:
    (mutant,) = (one for one in python_mutants("a.py", PYTHON) if one.before == "-")
    assert mutant.applied(PYTHON) == PYTHON.replace("a - 1", "a + 1")
    later = "# new\n\n" + PYTHON.replace("    log(a)\n", "")
    found = mutant.again(later)
    assert found is not None and found.line == mutant.line + 1
    assert found.applied(later) == later.replace("a - 1", "a + 1")
    assert mutant.again(PYTHON.replace("a - 1", "a - 2")) is None
    twice = PYTHON.replace("a - 1", "a - 1 - 1")
    places = [one for one in python_mutants("a.py", twice) if one.before == "-"]
    assert len(places) == 2 and [place.again(twice) for place in places] == places
    assert places[1].again("# new\n" + twice) is None, "which of the two it was is not known any more"


def test_a_seed_decides_the_draw_and_no_line_comes_twice() -> None:
    mutants = [*python_mutants("a.py", PYTHON), *python_mutants("b.py", PYTHON)]
    first = shuffled(mutants, 1)
    assert first == shuffled(reversed(mutants), 1) != shuffled(mutants, 2)
    assert len({(mutant.file, mutant.line) for mutant in first}) == len(first) == 8


def test_a_file_is_put_back_whatever_happens(tmp_path: Path) -> None:
    tree = Tree.__new__(Tree)
    tree.root = tmp_path / "tree"
    (tree.root / "src").mkdir(parents=True)
    place, saved = tree.root / "src" / "a.py", tmp_path / "saved"
    place.write_text(PYTHON, "utf-8")
    written = place.stat().st_mtime_ns
    mutant = next(iter(python_mutants("src/a.py", PYTHON)))
    with pytest.raises(ZeroDivisionError), Changed(tree, saved, mutant):
        assert place.read_text("utf-8") == mutant.applied(PYTHON)
        1 / 0  # noqa: B018
    assert place.read_text("utf-8") == PYTHON and place.stat().st_mtime_ns == written
    Changed(tree, saved, mutant).__enter__()  # and the process is killed here
    tree.restore(saved)
    assert place.read_text("utf-8") == PYTHON
    assert not [path for path in saved.rglob("*") if path.is_file()]


def test_mutants_live_below_build_alone() -> None:
    assert FOLDER.is_relative_to(ROOT / "build")


def test_every_file_of_the_product_has_tests_for_its_mutants() -> None:
    area = Area(ROOT)
    for path in product_files():
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("native/tests/"):
            tests = area.tests(name)
            assert tests and all((ROOT / test.partition(" -k ")[0]).is_file() for test in tests), name
    assert area.tests("src/pophood/look/views/lens.py")[0] == "tests/look/test_lens.py"


def test_the_table_counts_what_tests_could_have_noticed(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    mutants = list(python_mutants("a.py", PYTHON))[:4]
    for mutant, how in zip(mutants, ("failed", "hung", "passed", "does not compile"), strict=True):
        results.add({"key": mutant.key, **mutant.as_dict(), "how": how, "words": "", "language": "python"})
    shown = table(Results(tmp_path / "results.jsonl"))
    assert "python: 3 tried, 2 noticed (67% of 3), 1 survived" in shown
    assert f"survived: {mutants[2]}" in shown


def test_reasons_are_of_lines_that_are_there() -> None:
    import tomllib

    reasons = tomllib.loads((Path(__file__).parent / "reasons.toml").read_text("utf-8"))
    for entry in reasons.get("equivalent", []):
        one = SimpleNamespace(**entry)
        source = (ROOT / one.file).read_text("utf-8")
        assert one.reason and one.before in one.text, entry
        assert one.text in {line.strip() for line in source.splitlines()}, entry


def test_a_mutant_must_fit_its_file() -> None:
    mutant = Mutant("a.py", 1, 0, "x", "y", "operator", "x")
    with pytest.raises(AssertionError, match="not the file"):
        mutant.applied("z")
