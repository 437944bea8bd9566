"""docs/batch.md: its example gives the answers that it shows, its programs run, every field is named."""

from __future__ import annotations

import os
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pophood.batch import own, scoring
from tests import processes
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for name, text in BLOCKS if name == kind]


@pytest.fixture(scope="module")
def environment(smollm2: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "POPHOOD_MODELS": str(smollm2.parent.parent), "POPHOOD_OFFLINE": "1"}
    return os.environ | own


@pytest.fixture(scope="module")
def folder(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the input of the page and its answers, made by the command of the page."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "prompts.jsonl").write_text(blocks("jsonl")[0], encoding="utf-8")
    line, _, shown = blocks("console")[0].removeprefix("$ ").partition("\n")
    done = processes.run(
        ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    for part in shown.split("...\n"):
        assert part in done.stderr
    return folder


def test_the_answers_are_those_that_the_page_shows(folder: Path) -> None:
    told = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    shown = "".join(blocks("json")).splitlines()
    assert len(shown) == len(told) == 6
    for line in shown:
        escaped = re.sub(r"[\[\]*?]", lambda match: f"[{match[0]}]", line)
        wanted = escaped.replace("...", "*")
        assert any(fnmatchcase(one, wanted) for one in told), line


def programs() -> list[tuple[str, str]]:
    """Return the page's programs that print, without those for a cluster: tests/docs has the rest."""
    both = [(kind, text) for kind in ("python", "sh") for text in blocks(kind)]
    return [(kind, text) for kind, text in both if not re.search(r"\bray\b|^pophood", text)]


@pytest.mark.parametrize("number", range(len(programs())))
def test_its_programs_run(folder: Path, environment: dict[str, str], number: int) -> None:
    kind, text = programs()[number]
    command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-e", "-c", text]
    done = processes.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_every_field_is_named() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert {*own.SAME, *own.SAME.values(), *own.DIRECT, *own.NOT_HERE, *scoring.FIELDS} <= named
