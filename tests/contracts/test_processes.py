"""Tests start processes with tests/processes.py alone, and a process that a test leaves behind fails it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.contracts.sources import tracked_files
from tests.needs import linux

STARTERS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "spawnv", "spawnl"},
    "pty": {"fork", "spawn"},
    "multiprocessing": {"Process", "Pool", "get_context"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}
# The helper itself; programs that run as a child, in whose process group their own children stay.
ALLOWED = {"tests/processes.py", "tests/train/kills.py", "tests/mutants/warm.py", "tests/wheel_smoke.py"}


def starters_in(source: str) -> list[str]:
    """The calls in Python code that start a process: "line: module.name"."""
    return [
        f"{node.lineno}: {node.func.value.id}.{node.func.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.attr in STARTERS.get(node.func.value.id, ())
    ]


def test_every_child_of_a_test_is_started_by_the_helper() -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in tracked_files() if path.suffix == ".py"}
    tests = {name: path for name, path in files.items() if name.startswith("tests/")}
    assert tests.keys() > ALLOWED
    direct = {name: starters_in(path.read_text(encoding="utf-8")) for name, path in tests.items()}
    assert not {name: calls for name, calls in direct.items() if calls and name not in ALLOWED}
    assert all(direct[name] for name in ALLOWED), "the search finds those that there are"


def test_only_processes_are_imported_whole() -> None:
    """`from subprocess import run` would hide a call from the search above."""
    hidden = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in tracked_files()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in STARTERS
        for name in node.names
        if name.name in STARTERS[node.module] and path.name != "processes.py"
    ]
    assert not hidden


def gone(pid: int) -> bool:
    """Return whether a process has ended; it gets a moment to."""
    end = time.monotonic() + processes.HANG_SECONDS
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


LEAVING = """
import subprocess
import pytest
from tests import processes

def test_a_child():
    subprocess.Popen(["sleep", "3601"])

def test_a_child_of_a_child_that_has_ended():
    subprocess.run(["sh", "-c", "sleep 3602 &"])

def test_a_child_in_a_session_of_its_own():
    subprocess.Popen(["sleep", "3603"], start_new_session=True)

def test_an_orphan_in_a_session_of_its_own():
    subprocess.run(["sh", "-c", "setsid sleep 3604 &"])

@pytest.fixture(scope="module")
def shared():
    with processes.started(["sh", "-c", "(setsid sleep 3605 &); sleep 3606 & wait"]):
        yield

def test_nothing():
    pass

def test_with_a_fixture_of_the_module(shared):
    pass

def test_with_it_again(shared):
    pass
"""
QUICKLY = "from tests import processes\nprocesses.DYING_SECONDS = 0.5\n"  # as a conftest, workers read it too


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_left_behind_fails_its_test_and_is_killed(workers: int, tmp_path: Path) -> None:
    linux()
    (tmp_path / "test_some.py").write_text(LEAVING, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(QUICKLY, encoding="utf-8")
    words = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-W", "ignore::ResourceWarning"]
    words += ["-n", str(workers)] if workers else []
    done = processes.run(
        [sys.executable, "-m", "pytest", *words, "test_some.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    assert "7 passed, 4 errors" in done.stdout, done.stdout
    for number, name in enumerate(re.findall(r"def (test_a\w+)", LEAVING), 3601):
        assert re.search(rf"^ERROR test_some.py::{name} - left running", done.stdout, re.MULTILINE), name
        (pid,) = re.findall(
            rf"^left running, now killed: (\d+) \(sleep {number}\)$", done.stdout, re.MULTILINE
        )
        assert gone(int(pid))


def test_leaving_the_helper_kills_the_group_whatever_happens() -> None:
    linux()
    pids: list[int] = []
    with (
        pytest.raises(ZeroDivisionError),
        processes.started(
            ["sh", "-c", "sleep 3600 & setsid sleep 3600 & echo $$ $!; wait"], stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        while len(pids) < 3:  # the shell, and both of its children, have become what they will be
            running = [one for one in processes.descendants() if one.command.startswith(("sh -c", "sleep"))]
            pids = [one.pid for one in running]
        1 / 0  # noqa: B018
    assert process.pid in pids
    assert all(gone(pid) for pid in pids)


def test_a_process_that_hangs_is_ended_by_the_guard() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run([sys.executable, "-c", "import time; time.sleep(3600)"], timeout=0.2)
    assert not processes.descendants()
