"""Models of other families from the command line: tuned, run with what was learned, looked into."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.made_families import made_folder

SMALL = ("--steps", "2", "--length", "48", "--batch-size", "2", "--threads", "1")
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Return a text, in the folder where the program runs."""
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "method"),
    [("gemma3", "lora"), ("phi3", "lora"), ("gpt_neox", "lora"), ("gemma2", "full"), ("smollm3", "last")],
)
def test_tune_and_run(program: Program, notes: Path, tmp_path: Path, family: str, method: str) -> None:
    model = made_folder(tmp_path / "model", family)
    done = program("tune", "notes.txt", "-m", model, "--method", method, "-o", "out", *SMALL)
    assert done.code == 0, done.said
    tuned = ("-m", model, "--adapter", "out") if method == "lora" else ("-m", "out")
    prompt = "The sun sets " * 20  # longer than the windows
    said = program("run", prompt, *tuned, "--max-tokens", "5", "--threads", "1", "--temperature", "0")
    assert said.code == 0, said.said


@pytest.mark.filterwarnings("ignore")
def test_views_of_other_families(program: Program, tmp_path: Path) -> None:
    gemma = made_folder(tmp_path / "gemma2", "gemma2")
    for view in ("next", "parameters", "attention", "lens", "norm"):
        text = ("The sun sets over the hills and far away",) if view != "parameters" else ()
        done = program("look", view, *text, "-m", gemma)
        assert done.code == 0, (view, done.said)
