"""A run without a model: answers depend on their lines alone, so that every interruption can be tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pophood.batch.answers import AnswerFile
from pophood.batch.facts import BatchFacts
from pophood.batch.lines import InputLine, LineSource, open_lines
from pophood.batch.shapes import head_of

FACTS = BatchFacts(
    version="0",
    created=1_700_000_000,
    model="tiny",
    weights="ab12",
    precision="auto",
    kv="f16",
    context=128,
    computed="auto (blocks as stored)",
    adapters=[["notes", 0.5, "cd34"]],
    settings={"temperature": 0.8, "stop": ["END"]},
    seed=7,
)
LINES = [json.dumps({"prompt": f"line {i}", "more": "x" * (7 * i % 40)}) for i in range(6)]


def answer(line: InputLine, seed: int) -> dict[str, Any]:
    """Return the answer of a line in a run of that seed; every third one is an error."""
    assert line.data is not None
    if line.number % 3 == 0:
        return head_of(line) | {"error": {"message": "none"}}
    return head_of(line) | {"outputs": [json.loads(line.data)["prompt"].upper()], "seed": seed}


def run(
    folder: Path, facts: BatchFacts = FACTS, *, most: int | None = None, overwrite: bool = False
) -> tuple[int, int]:
    """Answer the lines of `prompts.jsonl` in `answers.jsonl`, at most so many; return (done before, new)."""
    file, origin = open_lines(str(folder / "prompts.jsonl"))
    new = 0
    with file, AnswerFile(folder / "answers.jsonl", overwrite=overwrite) as answers:
        source = LineSource(file, origin)
        answers.begin(facts, source)
        for line in source:
            if new == most:
                break
            answers.write(answer(line, facts.seed))
            new += 1
        return answers.done, new


def asked(folder: Path, lines: list[str] = LINES) -> Path:
    """Write the lines to a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def wanted(folder: Path, facts: BatchFacts = FACTS) -> bytes:
    """Return the answers of a run that nothing interrupted."""
    run(asked(folder), facts)
    return (folder / "answers.jsonl").read_bytes()


def told(folder: Path) -> bytes:
    """Return the answers that are there."""
    return (folder / "answers.jsonl").read_bytes()
