"""The lens while a model learns: what `look.lens` shows of the model before and of the result; the report."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.model.lm import LM
from pophood.train.data import DataOptions
from pophood.train.events import Looked, as_line
from pophood.train.report.lens import DIGITS, lens_figures, lens_table
from pophood.train.tune import Tuning
from tests.train.test_tune import TEXT, lm, of_method

__all__ = ["lm"]  # the fixture
PROMPT = "The sun sets"


def started(lm: LM, folder: Path, method: str, **options: Any) -> Tuning:
    notes = folder / "notes.txt"
    notes.write_text(TEXT, encoding="utf-8")
    data = DataOptions(cache=folder / "cache")
    settings = None if options.get("resume") else of_method(method)
    return Tuning(lm, notes, folder / "out", settings, data, **options)


def checked(seen: Looked, lm: LM) -> None:
    """Check an event against the view of the same model, at the end of the prompt."""
    view = look.lens(lm, seen.prompt)
    assert [block[0][0] for block in seen.blocks] == [row[view.column] for row in view.guess_texts]
    shares = np.array([block[0][1] for block in seen.blocks])
    assert np.allclose(shares, view.probabilities[:, view.column], atol=10.0**-DIGITS)
    assert all(one[1] >= other[1] for block in seen.blocks for one, other in pairwise(block))


@pytest.mark.parametrize("method", ["lora", pytest.param("last", marks=pytest.mark.full)])
def test_the_lens_of_a_run_is_that_of_its_models(lm: LM, tmp_path: Path, method: str) -> None:
    tuning = started(lm, tmp_path, method, prompts=[PROMPT], lens=True)
    seen = [event for event in tuning if isinstance(event, Looked)]
    assert [(event.step, event.prompt) for event in seen] == [(0, PROMPT), (3, PROMPT), (6, PROMPT)]
    assert tuning.card is not None and tuning.card.step == 6
    checked(seen[0], lm)
    if method == "lora":
        with_result = pophood.load(lm.bundle.path, threads=1)
        with_result.use_adapters([tuning.out])
        checked(seen[2], with_result)
    else:
        checked(seen[2], pophood.load(tuning.out, threads=1))
    assert seen[0].blocks != seen[1].blocks != seen[2].blocks

    lines = (tuning.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if '"looked"' in line] == [as_line(event) for event in seen]
    (figure,) = lens_figures([{"event": "looked", **asdict(event)} for event in seen])
    assert (figure["tokens"], figure["layers"]) == (["0", "3", "6"], ["block 0", "block 1"])
    assert figure["cells"][1][2]["text"] == seen[2].blocks[1][0][0]
    assert len(lens_table(figure)) == 2
    page = (tuning.out / "report.html").read_text(encoding="utf-8")
    assert "What each block would have said" in page
    assert "<th" in page and "step 3" in page


def test_a_resumed_run_goes_on_looking(lm: LM, tmp_path: Path) -> None:
    def stop() -> str | None:
        return "stopped" if steps(tmp_path) == 2 else None

    list(started(lm, tmp_path, "lora", lens=True, should_stop=stop))
    again = started(lm, tmp_path, "lora", resume=True)
    seen = [event for event in again if isinstance(event, Looked)]
    assert [event.step for event in seen] == [3, 3, 6, 6]
    assert len({event.prompt for event in seen}) == 2


def steps(folder: Path) -> int:
    path = folder / "out" / "events.jsonl"
    return path.read_text(encoding="utf-8").count('"event": "step"') if path.is_file() else 0


def test_without_it_nothing_is_read(lm: LM, tmp_path: Path) -> None:
    tuning = started(lm, tmp_path, "lora")
    assert not any(isinstance(event, Looked) for event in tuning)
    assert "What each block" not in (tuning.out / "report.html").read_text(encoding="utf-8")
