"""Programs that others can see while they run: by locks, which a killed process cannot leave behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pophood.system.programs import announced, is_running
from tests import processes
from tests.needs import linux

CHILD = """
import sys, pophood.system.programs as programs
with programs.announced('tune'):
    print('here', flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path))
    return tmp_path


def test_a_program_is_seen_while_it_runs(home: Path) -> None:
    assert not is_running("tune")
    with announced("tune"):
        assert is_running("tune")
        assert not is_running("serve")
        with announced("tune"):
            assert is_running("tune")
        assert is_running("tune")
    assert not is_running("tune")
    assert list((home / "running").iterdir()) == []


def test_another_process_is_seen_and_its_death_too(home: Path) -> None:
    linux()
    command = [sys.executable, "-c", CHILD]
    with processes.started(command, stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        assert is_running("tune")
        child.kill()
        child.wait()
        assert not is_running("tune")
    (left,) = (home / "running").iterdir()
    with announced("tune"):
        assert left.exists(), "a file that is new may belong to a program that begins"
    os.utime(left, (0, time.time() - 3600))
    with announced("tune"):
        assert not left.exists()


def test_a_home_that_cannot_be_written_harms_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("POPHOOD_HOME", str(home / "file"))
    with announced("tune"):
        assert not is_running("tune")
