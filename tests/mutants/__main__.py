"""Run the tests against small wrong changes, and list those that no test notices: `make mutants`.

    python -m tests.mutants [--cpp 50] [--python 100] [--seed 10] [--commit COMMIT] [--list] [--again]

The mutants are drawn at random from the code of one commit; the same commit and seed draw the same ones.
Each is tried in a copy of the project below build/mutants, against the tests of its area (areas.toml) as they
are in the checkout; the first test that fails ends it. Results are lines of JSON in
build/mutants/results.jsonl, and a run that was cut goes on where it was. `--list` shows the table of what is
known so far. `--again` tries the survivors once more, found by their line of code in COMMIT. Survivors that
no test can notice stand in reasons.toml with the reason.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.mutants.cpp_points import cpp_mutants
from tests.mutants.mutant import Mutant, shuffled
from tests.mutants.python_points import compiles, python_mutants
from tests.mutants.tree import NATIVE_TESTS, Outcome, Tree, commit_of

HERE = Path(__file__).parent
FOLDER = ROOT / "build" / "mutants"
NOT_COMPILED = {"neon.cpp"}  # for another processor
GUARD_FACTOR, GUARD_SECONDS, UNMEASURED_SECONDS = 4.0, 60.0, 90.0
NOTICED = ("failed", "hung")
EXAMPLES = "tests/contracts/test_examples.py"  # of docstrings


class Area:
    """Which tests a file's mutants are tried against, the nearest first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.table = tomllib.loads((HERE / "areas.toml").read_text("utf-8"))

    def tests(self, file: str) -> list[str]:
        """Test files for a source file."""
        prefixes = [prefix for prefix in self.table["areas"] if file.startswith(prefix)]
        assert prefixes, f"{file} has no area in tests/mutants/areas.toml"
        found: list[str] = []
        stem = Path(file).stem.strip("_")
        slow = set(self.table["slow"])
        for place in self.table["areas"][max(prefixes, key=len)]:
            if (self.root / place.partition(" -k ")[0]).is_file():  # named, so wanted even if it is slow
                found.append(place)
                continue
            files = sorted((self.root / place).rglob("test_*.py"))
            assert files, f"areas.toml: {place} is not there"
            names = [one.relative_to(self.root).as_posix() for one in files]
            found += [name for name in names if name not in slow]
        near = sorted(dict.fromkeys(found), key=lambda name: stem not in Path(name.partition(" -k ")[0]).stem)
        if file.endswith(".py") and ">>> " in (self.root / file).read_text("utf-8"):
            module = ".".join(Path(file).with_suffix("").parts[1:]).removesuffix(".__init__")
            near.append(f"{EXAMPLES} -k {module}")
        return near


def guard_of(seconds: float) -> float:
    """The seconds after which tests hang that take `seconds` without a change."""
    return GUARD_SECONDS + GUARD_FACTOR * seconds


class Results:
    """Results of the mutants and the time of unchanged tests, on disk line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_key: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float | None] = {}
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                self._take(json.loads(line))

    def _take(self, entry: dict[str, Any]) -> None:
        if "tests" in entry:
            self.seconds[entry["tests"]] = entry["seconds"]
        else:
            self.by_key[entry["key"]] = entry

    def add(self, entry: dict[str, Any]) -> None:
        self._take(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


class Trial:
    """Tries mutants in a tree, one at a time."""

    def __init__(self, folder: Path, tree: Tree, results: Results) -> None:
        self.tree = tree
        self.results = results
        self.area = Area(tree.root)
        self.saved = folder / "originals"
        tree.restore(self.saved)

    def guard(self, name: str, run: Callable[[float], Outcome]) -> float | None:
        """The seconds after which a mutant hangs: four times what the unchanged tests take, and a minute.

        They are measured once. None if they fail even so: such tests judge no mutant.
        """
        if name not in self.results.seconds:
            begin = time.monotonic()
            outcome = run(7200.0)
            seconds = time.monotonic() - begin if outcome.how == "passed" else None
            if seconds is None:
                print(f"left out, for it fails without any change: {name}: {outcome.words}", flush=True)
            self.results.add({"tests": name, "seconds": seconds})
        seconds = self.results.seconds[name]
        return None if seconds is None else guard_of(seconds)

    def guards(self, files: list[str]) -> Iterator[tuple[str, float]]:
        """Test files and their guards, in order, those left out that fail without any change."""
        for name in files:
            guard = self.guard(name, partial(self.tree.pytest, name))
            if guard is not None:
                yield name, guard

    def python(self, mutant: Mutant) -> tuple[str, str]:
        """How the tests of its area take a mutant of Python code."""
        if not compiles(mutant.applied(self.tree.source(mutant.file))):
            return "does not compile", ""
        for name in self.area.tests(mutant.file):
            measured = self.results.seconds.get(name, UNMEASURED_SECONDS)
            if measured is None:
                continue
            with self._changed(mutant):
                outcome = self.tree.pytest(name, guard_of(measured))
            if outcome.how == "failed" and self._passes_unchanged(outcome.test):
                return outcome.how, f"{name}: {outcome.words}"
            if (
                outcome.how == "passed"
                or (guard := self.guard(name, partial(self.tree.pytest, name))) is None
            ):
                continue
            if outcome.how == "hung" and guard > guard_of(measured):
                with self._changed(mutant):
                    outcome = self.tree.pytest(name, guard)
            if outcome.how != "passed":
                return outcome.how, f"{name}: {outcome.words}"
        return "passed", ""

    def _passes_unchanged(self, test: str | None) -> bool:
        """Return whether a single test passes without any change: quicker than trying its whole file."""
        if test is not None and test not in self.results.seconds:
            begin = time.monotonic()
            if self.tree.pytest(test, UNMEASURED_SECONDS).how == "passed":
                self.results.add({"tests": test, "seconds": time.monotonic() - begin})
        return test in self.results.seconds

    def cpp(self, mutant: Mutant) -> tuple[str, str]:
        """How the C++ tests take a mutant of C++ code, and Python tests if those pass."""
        self.build_unchanged()
        guard = self.guard(NATIVE_TESTS, self.tree.native_tests)
        assert guard is not None, "the C++ tests fail without any change"
        files = list(self.guards(self.area.tests(mutant.file)))
        before = self.tree.objects()
        try:
            with self._changed(mutant):
                return self._cpp_changed(guard, files, before)
        finally:
            self.tree.put_back(before)

    def _cpp_changed(
        self, guard: float, files: list[tuple[str, float]], before: dict[Path, tuple[bytes, int]]
    ) -> tuple[str, str]:
        for target in (NATIVE_TESTS, "_native"):
            built = self.tree.build(target)
            if built.how != "passed":
                return "does not compile", built.words
            if target == NATIVE_TESTS and (outcome := self.tree.native_tests(guard)).how != "passed":
                return outcome.how, outcome.words
        now = self.tree.objects()
        if all(now[path][0] == before[path][0] for path in now):
            return "same object code", ""
        for name, seconds in files:
            outcome = self.tree.pytest(name, seconds)
            if outcome.how != "passed":
                return outcome.how, f"{name}: {outcome.words}"
        return "passed", ""

    def build_unchanged(self) -> None:
        """Compile the code as it is."""
        for target in (NATIVE_TESTS, "_native"):
            built = self.tree.build(target)
            assert built.how == "passed", built.words

    def _changed(self, mutant: Mutant) -> Any:
        return Changed(self.tree, self.saved, mutant)


class Changed:
    """Changes a file of the tree while it is entered; the original is on disk, should the run be killed."""

    def __init__(self, tree: Tree, saved: Path, mutant: Mutant) -> None:
        self.tree, self.mutant = tree, mutant
        self.original = tree.source(mutant.file)
        self.written = (tree.root / mutant.file).stat().st_mtime_ns
        self.copy = saved / mutant.file

    def __enter__(self) -> None:
        changed = self.mutant.applied(self.original)
        self.copy.parent.mkdir(parents=True, exist_ok=True)
        self.copy.write_text(self.original, encoding="utf-8")
        self.tree.write(self.mutant.file, changed)

    def __exit__(self, *_: object) -> None:
        self.tree.write(self.mutant.file, self.original, self.written)
        self.copy.unlink()


def drawn(tree: Tree, language: str, seed: int) -> list[Mutant]:
    """All mutants of a language in the order in which they are tried."""
    if language == "python":
        files = list((tree.root / "src").rglob("*.py"))
    else:
        files = [p for p in (tree.root / "native").rglob("*") if p.suffix in {".cpp", ".h", ".inl"}]
        files = [p for p in files if p.name not in NOT_COMPILED and "tests" not in p.parts[-2:-1]]
    points = python_mutants if language == "python" else cpp_mutants
    names = [path.relative_to(tree.root).as_posix() for path in files]
    return shuffled([mutant for name in names for mutant in points(name, tree.source(name))], seed)


def tried(trial: Trial, language: str, seed: int, count: int) -> Iterator[tuple[Mutant, dict[str, Any]]]:
    """Try as many mutants as are wanted; those that do not compile do not count."""
    judge = trial.python if language == "python" else trial.cpp
    valid = 0
    for mutant in drawn(trial.tree, language, seed):
        if valid == count:
            return
        entry = trial.results.by_key.get(mutant.key)
        if entry is None:
            begin = time.monotonic()
            how, words = judge(mutant)
            entry = {"key": mutant.key, **mutant.as_dict(), "how": how, "words": words}
            trial.results.add(entry | {"language": language, "seconds": round(time.monotonic() - begin, 1)})
        valid += entry["how"] not in ("does not compile", "same object code")
        yield mutant, entry


def mutant_of(entry: dict[str, Any]) -> Mutant:
    """The mutant of a line of results."""
    return Mutant(**{name: entry[name] for name in Mutant.__slots__})


def reason_of(mutant: Mutant) -> str | None:
    """Why no test can notice a mutant, if that is written down."""
    for entry in tomllib.loads((HERE / "reasons.toml").read_text("utf-8")).get("equivalent", []):
        if all(entry[name] == getattr(mutant, name) for name in ("file", "text", "before", "after")):
            return str(entry["reason"])
    return None


def table(results: Results) -> str:
    """Noticed, equivalent and surviving mutants of both languages."""
    lines = []
    for language in ("cpp", "python"):
        entries = [e for e in results.by_key.values() if e.get("language") == language]
        entries = [e for e in entries if e["how"] in (*NOTICED, "passed")]
        mutants = [(mutant_of(e), e) for e in entries]
        survivors = [mutant for mutant, e in mutants if e["how"] == "passed"]
        real = [mutant for mutant in survivors if reason_of(mutant) is None]
        noticed, counted = len(mutants) - len(survivors), len(mutants) - len(survivors) + len(real)
        share = f" ({noticed / counted:.0%} of {counted})" if counted else ""
        lines.append(f"{language}: {len(mutants)} tried, {noticed} noticed{share}, {len(survivors)} survived")
        lines += [f"  survived: {mutant}" for mutant in real]
        lines += [
            f"  equivalent: {mutant}: {reason_of(mutant)}" for mutant in survivors if mutant not in real
        ]
    return "\n".join(lines)


def try_again(trial: Trial) -> None:
    """Try every survivor against the tests and the code of now."""
    for key, entry in list(trial.results.by_key.items()):
        if entry["how"] != "passed" or reason_of(mutant_of(entry)) is not None:
            continue
        old = mutant_of(entry)
        mutant = old.again(trial.tree.source(old.file)) if (trial.tree.root / old.file).is_file() else None
        if mutant is None:
            print(f"gone: {old}", flush=True)
            continue
        how, words = (trial.python if entry["language"] == "python" else trial.cpp)(mutant)
        trial.results.add({**entry, "key": key, "how": how, "words": words})
        print(f"{how}: {mutant}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--python", type=int, default=100, help="mutants of Python code")
    parser.add_argument("--cpp", type=int, default=50, help="mutants of C++ code")
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--commit", default="HEAD", help="where the code is drawn from")
    parser.add_argument("--own-tests", action="store_true", help="with the tests of that commit")
    parser.add_argument("--again", action="store_true", help="try the survivors again")
    parser.add_argument("--folder", default=FOLDER.name, help="of build/: the copy and the results")
    parser.add_argument("--list", action="store_true", help="show what is known, try nothing")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what runs is ended and put back
    folder = FOLDER.with_name(wanted.folder)
    results = Results(folder / "results.jsonl")
    if wanted.list:
        print(table(results))
        return
    tree = Tree(folder, commit_of(wanted.commit), own_tests=wanted.own_tests)
    trial = Trial(folder, tree, results)
    if wanted.cpp:
        tree.configure()
        trial.build_unchanged()
    else:
        tree.use_installed_module()
    try:
        if wanted.again:
            try_again(trial)
        for language, count in (("cpp", wanted.cpp), ("python", wanted.python)) if not wanted.again else ():
            for mutant, entry in tried(trial, language, wanted.seed, count):
                print(f"{entry['how']}: {mutant}", flush=True)
            if count and language == "cpp":
                trial.build_unchanged()
    finally:
        tree.close()
    print(table(results))


if __name__ == "__main__":
    main()
