"""The copy of the project in which mutants live: never the checkout, and thrown away with build/.

The copy has an environment of its own that finds `pophood` in the copy and everything else where the tests'
own environment has it; an editable installation's import hook is not part of it.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests import processes
from tests.conftest import ROOT
from tests.mutants.warm import LOG

NATIVE_TESTS = "native_tests"
PASSED = ("0", "5")  # 5: no test of the file is run
QUIETLY = [
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "--no-header",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
SITE = Path(sysconfig.get_path("platlib"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: "passed", "failed" or "hung", and its last lines."""

    how: str
    words: str

    @property
    def test(self) -> str | None:
        """The test that failed first, by pytest's words."""
        match = re.search(r"(?:FAILED|ERROR) (tests/[^ ]+?::.+?)(?: - | \||$)", self.words)
        return None if match is None else match[1]


class Tree:
    """The project at a commit, with the tests of the checkout or of that commit, in `folder`."""

    def __init__(self, folder: Path, commit: str, *, own_tests: bool) -> None:
        self.root = folder / "tree"
        self.built = folder / "native"
        self.python = folder / "venv" / "bin" / "python"
        self._stack = ExitStack()
        self._warm: subprocess.Popen[str] | None = None
        mark = folder / "made"
        wanted = f"{commit} {own_tests}"
        if not mark.is_file() or mark.read_text("utf-8") != wanted:
            _unpack(commit, self.root)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(wanted, "utf-8")
        if not own_tests:  # the tests as they are now, native ones included
            for part in ("tests", "native/tests"):
                shutil.rmtree(self.root / part, ignore_errors=True)
                shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "build").mkdir(exist_ok=True)
        home = self.root / "build" / "test-home"
        if (ROOT / "build" / "test-home").is_dir() and not home.exists():
            home.symlink_to(ROOT / "build" / "test-home")  # the small real model
        if not self.python.exists():
            self._make_environment(folder / "venv")

    def _make_environment(self, folder: Path) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "copy.pth").write_text(f"{self.root / 'src'}\n{SITE}\n", "utf-8")
        for script in Path(sys.executable).parent.iterdir():  # cmake, ninja and the like
            if not (folder / "bin" / script.name).exists():
                (folder / "bin" / script.name).symlink_to(script)

    def source(self, file: str) -> str:
        return (self.root / file).read_text(encoding="utf-8")

    def write(self, file: str, source: str, written: int | None = None) -> None:
        """Replace a file at once: a kill leaves the old or the new one. `written`: its time in ns."""
        new = self.root / f"{file}.new"
        new.write_text(source, encoding="utf-8")
        if written is not None:
            os.utime(new, ns=(written, written))
        new.replace(self.root / file)

    def restore(self, originals: Path) -> None:
        """Undo what a killed run left changed: `originals` has the files as they were, by their place."""
        for saved in originals.rglob("*"):
            if saved.is_file():
                self.write(saved.relative_to(originals).as_posix(), saved.read_text(encoding="utf-8"))
                saved.unlink()

    # ---- running ----

    def pytest(self, tests: str, seconds: float) -> Outcome:
        """Run a test file, or the tests of `FILE -k WORDS`, until the first failure."""
        file, *chosen = tests.split(" -k ")
        arguments = [file, "-k", *chosen] if chosen else [file]
        if self._warm is None:
            streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            script = str(self.root / "tests" / "mutants" / "warm.py")
            command = [str(self.python), "-P", script]
            self._warm = self._stack.enter_context(
                processes.started(command, cwd=self.root, env=self._environment(), **streams)
            )
        assert self._warm.stdin is not None and self._warm.stdout is not None
        self._warm.stdin.write(json.dumps([[*QUIETLY, *arguments], seconds]) + "\n")
        self._warm.stdin.flush()
        code = self._warm.stdout.readline().strip()
        if code == "hung":
            return Outcome("hung", f"not done after {seconds:.0f} s")
        words = _last((self.root / LOG).read_text(encoding="utf-8", errors="replace"))
        return Outcome("passed" if code in PASSED else "failed", words)

    def native_tests(self, seconds: float) -> Outcome:
        """The C++ tests, the quick ones first."""
        quick = self._run([str(self.built / NATIVE_TESTS), "--quick"], seconds)
        return self._run([str(self.built / NATIVE_TESTS)], seconds) if quick.how == "passed" else quick

    def close(self) -> None:
        self._stack.close()

    def configure(self) -> None:
        """Configure a build of the C++ tests and of the Python module; without effect where that is done."""
        nanobind = SITE / "nanobind" / "cmake"
        state = {"STATE": "editable", "PROJECT_NAME": "pophood", "PROJECT_VERSION": "0", "SABI_COMPONENT": ""}
        state |= {"SOABI": sysconfig.get_config_var("SOABI"), "PLATLIB_DIR": str(self.built / "platlib")}
        options = ["-DSKBUILD=2", *(f"-DSKBUILD_{name}={value}" for name, value in state.items())]
        options += [f"-Dnanobind_DIR={nanobind}", f"-DPython_EXECUTABLE={self.python}", "-GNinja"]
        done = self._run(["cmake", "-S", str(self.root), "-B", str(self.built), *options], 3600)
        assert done.how == "passed", done.words

    def build(self, target: str, seconds: float = 3600) -> Outcome:
        """Compile what has changed; the Python module is put where the copy's Python finds it."""
        done = self._run(["cmake", "--build", str(self.built), "--target", target, "-j", "1"], seconds)
        if done.how == "passed" and target == "_native":
            (module,) = self.built.glob("_native*.so")
            place = self.root / "src" / "pophood" / module.name
            shutil.copyfile(module, place.with_suffix(".new"))
            place.with_suffix(".new").replace(place)
        return done

    def use_installed_module(self) -> None:
        """Take the Python module of this installation: for mutants of Python code."""
        (module,) = (SITE / "pophood").glob("_native*.so")
        shutil.copyfile(module, self.root / "src" / "pophood" / module.name)

    def objects(self) -> dict[Path, tuple[bytes, int]]:
        """The compiled files: their bytes and when they were written."""
        files = sorted((self.built / "CMakeFiles").rglob("*.o"))
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def put_back(self, objects: dict[Path, tuple[bytes, int]]) -> None:
        """Put objects back as they were, so that a restored source need not be compiled again."""
        for path, (content, written) in objects.items():
            if not path.is_file() or path.stat().st_mtime_ns != written:
                path.write_bytes(content)
                os.utime(path, ns=(written, written))
        for name in ("libpophood_core.a", NATIVE_TESTS, "_native*.so"):
            for path in self.built.glob(name):
                path.unlink()

    def _environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"}
        return environment | {
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def _run(self, command: list[str], seconds: float) -> Outcome:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        with processes.started(command, cwd=self.root, env=self._environment(), **streams) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                return Outcome("hung", f"not done after {seconds:.0f} s")
        return Outcome("passed" if process.returncode == 0 else "failed", _last(output))


def _last(output: str) -> str:
    return " | ".join([line for line in output.splitlines() if line.strip()][-4:])[-1000:]


def _unpack(commit: str, folder: Path) -> None:
    """Put the files of a commit into a folder; those that it has already keep their time for the compiler."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".so"]
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    shutil.rmtree(folder, ignore_errors=True)
    packed = processes.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    for path, (content, written) in kept.items():
        if path.is_file() and path.read_bytes() == content:
            os.utime(path, ns=(written, written))


def commit_of(name: str) -> str:
    """The full id of a commit."""
    command = ["git", "rev-parse", f"{name}^{{commit}}"]
    return processes.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
