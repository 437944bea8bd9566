"""Documents with the same prompt are on one side of the split, in every layout.

No question of the training side has an answer on the validation side.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.train.data import Data, DataOptions, Examples
from pophood.train.data.dataset.dataset import groups_of
from pophood.train.data.dataset.store import DOCUMENT
from pophood.train.data.read.layouts import items_of, prompt_of
from tests.conftest import ROOT
from tests.train.data.samples import byte_level, opened, write_lines

CASES = ROOT / "tests" / "data" / "cases"


def messages(question: str, answer: str, *more: str) -> list[dict[str, str]]:
    said = [question, answer, *more]
    return [{"role": ("user", "assistant")[n % 2], "content": words} for n, words in enumerate(said)]


def turns(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": words} for n, words in enumerate(said)]


LAYOUTS: dict[str, Any] = {  # layout -> a record of a question and its answer
    "prompt": lambda q, a: {"prompt": q, "completion": a},
    "prompt and system": lambda q, a: {"system": "Be brief.", "prompt": q, "completion": a},
    "prompt of messages": lambda q, a: {"prompt": messages(q, a)[:1], "completion": messages(q, a)[1:]},
    "alpaca": lambda q, a: {"instruction": "Answer.", "input": q, "output": a},
    "alpaca without input": lambda q, a: {"instruction": q, "input": "", "output": a},
    "sharegpt": lambda q, a: {"conversations": turns(q, a, "Sure?", f"{a} Yes.")},
    "sharegpt, greeting first": lambda q, a: {"conversations": [*turns("", "Hello!")[1:], *turns(q, a)]},
    "messages": lambda q, a: {"messages": messages(q, a)},
    "messages that go on": lambda q, a: {"messages": messages(q, a, f"Why {a}", "Because.")},
    "messages and system": lambda q, a: {
        "messages": [{"role": "system", "content": "Be brief."}, *messages(q, a)]
    },
    "tasks": lambda q, a: {"instruction": q, "instances": [{"input": "", "output": a}]},
}  # fmt: skip


def question_of(example: Any) -> str:
    text = byte_level().decode(example.ids.tolist())
    return re.split("what is", text, flags=re.IGNORECASE)[1].split("?")[0].replace(" ", "").replace("\n", "")


def asked(side: Examples) -> set[str]:
    return {question_of(example) for example in side}


def check(data: Data) -> None:
    assert len(data.train) and len(data.validation)
    assert asked(data.train).isdisjoint(asked(data.validation))
    assert not any("is validated with too" in warning for warning in data.report.warnings)
    assert "documents with the same prompt stay together" in data.report.notes[0]


def test_the_reported_file(tmp_path: Path) -> None:
    data = opened(CASES / "several-answers.jsonl", cache=tmp_path)
    check(data)
    count = len((CASES / "several-answers.jsonl").read_text(encoding="utf-8").splitlines())
    assert 0.05 * count < len(data.validation) < 0.2 * count and len(data.validation) % 3 == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"validation": 0.3, "seed": 1}, {"validation": 6}], ids=str)
def test_answers_to_one_prompt_stay_together(layout: str, options: dict[str, Any], tmp_path: Path) -> None:
    records = [
        LAYOUTS[layout](f"What is {n} plus {n}?", f"It is {2 * n}{ending}")
        for n in range(30)
        for ending in (".", ", I think.", "!")
    ]
    data = opened(write_lines(tmp_path / "a.jsonl", records), **options)
    check(data)
    assert data.report.documents == 90
    if options.get("validation", 0) == 6:
        assert len(data.validation) == 6


def test_white_space_and_case_make_no_other_prompt(tmp_path: Path) -> None:
    records = [
        {"prompt": form.format(n), "completion": f"It is {2 * n}{n % 3}{len(form)}."}
        for n in range(20)
        for form in ("What is {0} plus {0}?", "what is {0}  plus {0} ?", "What is {0} plus\n{0}?")
    ]
    check(opened(write_lines(tmp_path / "a.jsonl", records)))


def test_a_table_and_files_of_several_layouts(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [f'"What is {n} plus {n}?","It is {2 * n}"' for n in range(20)]
    (folder / "a.csv").write_text("prompt,completion\n" + "\n".join(rows), encoding="utf-8")
    for name, layout, ending in (
        ("b", "messages", "!"),
        ("c", "sharegpt", "?"),
        ("d", "alpaca without input", ";"),
    ):
        records = [LAYOUTS[layout](f"What is {n} plus {n}?", f"It is {2 * n}{ending}") for n in range(20)]
        write_lines(folder / f"{name}.jsonl", records)
    data = opened(folder, cache=tmp_path / "kept")
    check(data)
    assert data.report.documents == 80


def test_equal_documents_join_their_groups(tmp_path: Path) -> None:
    """A task's instances form one group by its instruction, joined by an equal example elsewhere."""
    tasks = [
        {
            "instruction": f"Task {n}.",
            "instances": [{"input": f"What is {n}{k}?", "output": "x"} for k in range(4)],
        }
        for n in range(20)
    ]
    plain = [
        {"instruction": f"Task {n}.", "input": f"What is {n}{k}?", "output": "x"}
        for n in range(20)
        for k in (0, 2)
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    write_lines(folder / "a.jsonl", tasks)
    write_lines(folder / "b.jsonl", plain)
    data = opened(folder, cache=tmp_path / "kept")
    assert asked(data.train).isdisjoint(asked(data.validation)) and len(data.validation)


def test_one_prompt_alone_is_split_by_its_answers(tmp_path: Path) -> None:
    records = [
        {"prompt": "Write a line.", "completion": f"Line {n} {'is new' if n < 38 else 'again'}."}
        for n in range(40)
    ]
    records += records[:10]
    data = opened(write_lines(tmp_path / "a.jsonl", records))
    assert 2 <= len(data.validation) <= 12
    sides = [{byte_level().decode(e.ids.tolist()) for e in side} for side in (data.train, data.validation)]
    assert sides[0].isdisjoint(sides[1])  # equal documents still stay together
    (warning,) = (warning for warning in data.report.warnings if "validation data has, too" in warning)
    assert warning.startswith(
        f"{len(data.train)} training documents have a prompt that the validation data has, too"
    )


def test_files_to_validate_with_share_no_prompt_in_silence(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "a.jsonl", [{"prompt": f"Q{n}?", "completion": "yes"} for n in range(20)])
    held = write_lines(
        tmp_path / "b.jsonl", [{"prompt": "q 3?", "completion": "no"}, {"prompt": "Q5?", "completion": "yes"}]
    )
    data = opened(train, validation_paths=(held,))
    assert (data.report.overlap, len(data.train)) == (1, 19)  # Q5 with its answer is left out, Q3 is not
    assert any(
        w.startswith("1 training document has a prompt that the validation") for w in data.report.warnings
    )


def test_plain_texts_have_no_prompt(tmp_path: Path) -> None:
    data = opened(write_lines(tmp_path / "a.jsonl", [{"text": f"the same start {n}"} for n in range(40)]))
    assert "stay together" not in data.report.notes[0]
    assert not any("validated with" in warning for warning in data.report.warnings)


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"messages": messages("a", "b", "c", "d")}, ("a",)),
        ({"messages": [{"role": "system", "content": "s"}, *messages("a", "b")]}, ("s", "a")),
        ({"messages": [*messages("a", "b")[1:], *messages("c", "d")]}, ("c",)),
        ({"messages": [*messages("a", "b")[:1], *messages("c", "d")]}, ("a", "c")),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "b"}]}, ()),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}, *messages("a", "b")[1:]]}, ("a",)),
    ],
)  # fmt: skip
def test_the_prompt_is_what_comes_before_the_first_answer(record: Any, prompt: tuple[str, ...]) -> None:
    (item,) = items_of(record, "messages", {})
    assert prompt_of(item) == prompt


def test_groups_are_joined_through_chains() -> None:
    rows = np.zeros(7, DOCUMENT)
    rows["group"] = [10, 10, 20, 20, 30, 40, 50]
    rows["digest"] = [1, 2, 2, 3, 3, 4, 5]  # 10 - 20 - 30 by equal documents
    assert groups_of(rows).tolist() == [10, 10, 10, 10, 10, 40, 50]
    rows["group"] = 7
    assert groups_of(rows).tolist() == [1, 2, 2, 3, 3, 4, 5]
    assert groups_of(rows[:0]).tolist() == []


def test_the_seed_of_the_split_is_42_everywhere(tmp_path: Path) -> None:
    """The help, the library and the command line agree."""
    from pophood.cli.options.tune import TuneArgs
    from pophood.settings import settings_of
    from pophood.train.settings import TrainSettings

    path = write_lines(tmp_path / "a.jsonl", [{"text": f"text {n}"} for n in range(60)])
    seeds: list[dict[str, Any]] = [{}, {"seed": 42}, {"seed": 0}]
    sides = [{example.source for example in opened(path, **seed).validation} for seed in seeds]
    assert sides[0] == sides[1] != sides[2]
    assert "chosen by seed 42" in opened(path).report.notes[0]
    (seed_setting,) = (one for one in settings_of(TrainSettings) if one.name == "seed")
    assert "split" in seed_setting.help and seed_setting.default == "42"
    assert TuneArgs().data_options() == DataOptions()
    assert TuneArgs(settings={"seed": 42}).data_options().seed == 42
    assert json.dumps(DataOptions().seed) == "null"
