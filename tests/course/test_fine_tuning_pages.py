"""The talk's fifth part on the small real model: its pages give sensible results and leave no files behind.

The pages run on random models with the rest of the course (test_lesson, test_notebook, tests/cli/test_talk).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import pophood
from pophood.course import Course, Lesson
from pophood.course.deck import deck_html
from pophood.course.lesson import CellFailed
from pophood.course.needs import Missing
from pophood.course.notebook import notebook_json
from pophood.errors import BadInput
from pophood.table import Table
from tests.course.walked import Walked, walk
from tests.processes import HANG_SECONDS
from tests.tiny import tiny_folder

PAGES = ("training-text", "loss", "one-step", "training-run", "before-and-after", "what-changed")
TEXT = "The capital of Spain is"


class Taken(NamedTuple):
    """The results of the six pages on smollm2, the model's logits before them, and the working folder."""

    pages: dict[str, Walked]
    logits: Any
    here: Path
    home: Path
    temporary: Path


@pytest.fixture(scope="module")
def taken(course: Course, small: pophood.LM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    here, home, temporary = (tmp_path_factory.mktemp(name) for name in ("here", "home", "temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("POPHOOD_HOME", str(home))
        patch.setattr(tempfile, "tempdir", str(temporary))
        logits = small.logits(TEXT)
        yield Taken(walk(course, small, PAGES), logits, here, home, temporary)


def table(page: Walked, number: int = 0) -> Table:
    found = [value for value in page.values if isinstance(value, Table)][number]
    assert isinstance(found, Table)
    return found


def numbers(table: Table, column: str) -> list[float]:
    return [float(str(value)) for value in table.column(column)]


def test_they_come_in_order_and_those_that_train_say_so(course: Course) -> None:
    found = [page for page in course.pages if page.name in PAGES]
    assert [page.name for page in found] == list(PAGES)
    assert [page.needs for page in found] == ["", "", "torch", "torch", "torch", "torch"]
    assert [page.name for page in found if page.kept] == ["training-run"]
    assert course.pages[-1].name == "wrap-up"


def test_targets_are_the_text_shifted_by_one(taken: Taken) -> None:
    page = taken.pages["training-text"]
    tokens, targets = (table(page).column(name) for name in ("token_text", "target_text"))
    assert tokens == ["The", " capital", " of", " Spain", " is", " Madrid", "."]
    assert targets == [*tokens[1:], "<|im_end|>"] and page.verdict.answer == '" is"'
    assert table(page, 1).column("target_text") == [None] * 4 + [" Madrid", ".", "<|im_end|>"]
    match = re.search(r"([\d,]+) tokens, of which (\d+) are kept", page.printed)
    assert match is not None
    assert 0.15 < int(match[2]) / int(match[1].replace(",", "")) < 0.25


def test_the_loss_by_hand_is_the_engines(taken: Taken, small: pophood.LM) -> None:
    page = taken.pages["loss"]
    score = small.score(TEXT + " Madrid.")
    assert np.allclose(numbers(table(page), "loss"), -score.log_probabilities[1:], atol=1e-4)
    assert page.printed.count(f"{score.mean_nll:.4f}") == 2, "by hand and by the engine"
    assert page.verdict.answer == "10.80" and np.log(small.config.vocab_size) == pytest.approx(
        10.8027, abs=1e-4
    )


def test_the_losses_that_the_page_tells(taken: Taken) -> None:
    for probability, loss in re.findall(r"\| ([\d./ ,]+) \| ([\d.]+) \|", taken.pages["loss"].said):
        over, _, under = probability.replace(",", "").partition("/")
        assert float(loss) == pytest.approx(-np.log(float(over) / float(under or 1)), abs=0.005)


def test_a_short_step_keeps_its_promise_and_a_long_one_does_not(taken: Taken) -> None:
    page = taken.pages["one-step"]
    assert page.verdict.answer == "yes"
    torch, engine, before, after = map(float, re.findall(r"\b\d\.\d{4}\b", page.printed))
    assert torch == pytest.approx(engine, abs=1e-3) and before == torch
    assert 0.02 * before < before - after < 0.06 * before, "5 % were promised"
    kept = [
        fall / promised
        for fall, promised in zip(
            numbers(table(page), "fall"), numbers(table(page), "promised_fall"), strict=True
        )
    ]
    assert kept[0] == pytest.approx(1, abs=0.05) and kept == sorted(kept, reverse=True) and kept[-1] < 0.5


def test_the_run_learns(taken: Taken, small: pophood.LM) -> None:
    page = taken.pages["training-run"]
    losses = numbers(table(page), "loss")
    assert len(losses) == 16 and losses[-1] < 0.5 * losses[0]
    first, last = map(float, re.findall(r"validation loss (\d\.\d+)", page.printed))
    assert last < 0.5 * first
    assert float(page.verdict.answer) == pytest.approx(2_442_240 / small.n_params, rel=1e-3)
    assert page.printed.startswith("Day 1. Wind east, sea slight. A schooner passed.")


def test_before_and_after_by_the_engine(taken: Taken, small: pophood.LM) -> None:
    page = taken.pages["before-and-after"]
    rows = {name: (float(str(a)), float(str(b))) for name, a, b in table(page).rows}
    before, after = rows["validation loss"]
    assert after < 0.5 * before
    assert rows["validation perplexity"] == pytest.approx((np.exp(before), np.exp(after)))
    before, after = rows["loss on other text"]
    assert before < after < before + 1 and page.verdict.answer == "yes", "it forgets a little"
    assert re.search(r"after:  'Day 61\. Wind \w+", page.printed)
    assert small.adapters == () and np.array_equal(small.logits(TEXT), taken.logits), "it is off again"


def test_every_change_has_the_rank_of_the_adapter(taken: Taken, small: pophood.LM) -> None:
    page = taken.pages["what-changed"]
    assert page.verdict.answer == "8"
    kinds, blocks = table(page), table(page, 1)
    assert kinds.column("matrix") == sorted(f"attn.{x}" for x in ("q", "k", "v", "out")) + [
        f"mlp.{x}" for x in ("down", "gate", "up")
    ]
    assert all(rank == 8 for rank in numbers(kinds, "numerical_rank"))
    assert all(1 <= stable <= 8 for stable in numbers(kinds, "stable_rank"))
    assert all(0 < share < 0.1 for share in numbers(kinds, "share_of_weight"))
    assert blocks.column("block") == list(range(small.config.n_layer))
    assert max(numbers(blocks, "of_the_most")) == 1


def test_only_the_temporary_folder_is_written_to(taken: Taken) -> None:
    assert not [*taken.here.iterdir(), *taken.home.iterdir()]
    # torch writes its own cache there.
    found = [path for path in taken.temporary.iterdir() if not path.name.startswith("torchinductor")]
    (folder,) = found
    assert folder.name.startswith("pophood-talk-") and (folder / "log-lora" / "report.json").is_file()


# ---- pages that continue another one ----


@pytest.fixture
def tiny(tmp_path: Path) -> pophood.LM:
    return pophood.load(tiny_folder(tmp_path / "model", "llama"))


def named(course: Course, name: str) -> Any:
    return next(page for page in course.pages if page.name == name)


def test_taken_alone_a_page_runs_the_one_that_it_continues_once(
    course: Course, tiny: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pophood.train import tune as module

    calls, tune = [], module.tune

    def counted(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        return tune(*arguments, **settings | {"steps": 2})

    monkeypatch.setattr(module, "tune", counted)
    for name in ("what-changed", "before-and-after"):
        lesson = Lesson(named(course, name), tiny)
        lesson.outputs()
        assert lesson.check(None).judged == "answer"
    assert len(calls) == 1
    Lesson(named(course, "training-run"), tiny).outputs()
    assert len(calls) == 2, "that page itself always runs"


def test_a_run_that_fails_is_tried_once_a_page_and_named(
    course: Course, tiny: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pophood.train import tune as module

    calls = []

    def refused(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        raise BadInput("no")

    monkeypatch.setattr(module, "tune", refused)
    page = named(course, "what-changed")
    lesson = Lesson(page, tiny)
    for cell in page.cells("run", "run"):
        with pytest.raises(CellFailed, match=r"^en/28-training-run\.md:\d+: BadInput: no$"):
            lesson.run(cell)
    with pytest.raises(CellFailed, match="28-training-run"):
        lesson.check(None)
    assert len(calls) == 1


# ---- without torch ----

LINE = "training needs torch, which is not installed; a build for CPUs: "


def test_without_torch_nothing_is_run_and_one_line_says_so(
    course: Course, tiny: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in PAGES:
        page = named(course, name)
        lesson = Lesson(page, tiny)
        outputs = lesson.outputs()
        if not page.needs:
            assert lesson.check(None).judged == "answer"
            continue
        assert outputs[0].printed.startswith(LINE) and outputs[0].printed.count("\n") == 1
        assert not any(output.printed or output.value for output in outputs[1:])
        assert str(lesson.check("yes")) == "No answer: the cells of this page were not run."
        with pytest.raises(Missing, match="needs torch"):
            lesson.answer()


def test_slides_without_torch(course: Course, tiny: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    pages = (named(course, "one-step"), named(course, "wrap-up"))
    deck = deck_html(replace(course, pages=pages), tiny)
    assert deck.count(LINE) == 1 and "No answer: the cells of this page were not run." in deck
    assert deck.count("The answer: ") == 1


def test_the_notebook_goes_on_without_torch(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell that needs torch shows one line without a traceback, and the cells after it run."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("POPHOOD_MODEL", str(tiny_folder(tmp_path / "model", "llama")))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    pages = tuple(named(course, name) for name in ("one-step", "before-and-after", "loss"))
    book = json.loads(notebook_json(replace(course, pages=pages)))
    first = next(cell for cell in book["cells"] if cell["id"] == "model")
    first["source"] = ['import sys\nsys.modules["torch"] = None\n', *first["source"]]
    notebook = nbformat.reads(json.dumps(book), as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=int(HANG_SECONDS), kernel_name="python3").execute()
    needing = [cell for cell in notebook.cells if "raises-exception" in cell["metadata"].get("tags", [])]
    assert len(needing) == 5 + 4
    for cell in needing:
        assert cell["source"].startswith('need("torch")\n')
        (output,) = cell["outputs"]
        assert output["output_type"] == "error" and output["ename"] == "Missing"
        assert len(output["traceback"]) == 1 and output["traceback"][0].startswith(LINE)
    last = next(cell for cell in notebook.cells if cell["id"] == "page-26-check-code-1")
    assert "The answer: 6.24." in last["outputs"][0]["data"]["text/html"]
