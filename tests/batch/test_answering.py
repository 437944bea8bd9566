"""Answers in batches are those that the library gives for each line alone; order, streams, errors, memory."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood.batch import parse
from pophood.batch.answering import AHEAD, Answering
from pophood.batch.lines import InputLine, LineSource
from pophood.batch.model import BatchModel, LineDefaults
from pophood.errors import EngineError
from tests.batch.answered import SEED, answered, check, mixed, source_of, written


def compare(lm: pophood.LM, alone: pophood.LM, n: int, seed: int) -> None:
    lines = mixed(lm, n, seed)
    records = answered(lm, lines)
    assert [record["line"] for record in records] == list(range(1, n + 1))
    for record, line in zip(records, lines, strict=True):
        check(record, line, alone, lm)
    assert lm.engine._sequence_adapters == {}, "every sequence was dropped"


def test_mixed_lines_have_the_bits_of_the_library(lm: pophood.LM, alone: pophood.LM) -> None:
    compare(lm, alone, 60, seed=1)


@pytest.mark.full
def test_five_hundred_mixed_lines_have_the_bits_of_the_library(lm: pophood.LM, alone: pophood.LM) -> None:
    compare(lm, alone, 500, seed=2)


def test_a_line_alone_has_the_same_answer_as_in_a_batch(lm: pophood.LM) -> None:
    """One function makes one line to one answer, whatever was answered before."""
    lines: list[dict[str, Any] | str] = [*mixed(lm, 12, seed=3), "no JSON"]
    source, wanted = source_of(lines), answered(lm, lines, together=3)
    model = BatchModel(lm, LineDefaults(seed=SEED))
    with Answering(model, together=3) as answering:
        assert [answering.answer(line) for line in source] == wanted


def test_nothing_depends_on_how_many_are_computed_together(lm: pophood.LM) -> None:
    lines = mixed(lm, 20, seed=4)
    assert answered(lm, lines, together=3) == answered(lm, lines, together=16)


def test_samples_of_all_lines_share_the_room(lm: pophood.LM) -> None:
    lines = [{"prompt": "the cat", "n": 6, "max_tokens": 4}, {"prompt": "a dog", "n": 16, "max_tokens": 4}]
    one, other = answered(lm, lines, together=6)
    assert len(one["outputs"]) == 6
    assert "16 samples" in other["error"]["message"] or "n is 16" in other["error"]["message"]


class Counted:
    """A source that knows how far it was read."""

    def __init__(self, source: LineSource) -> None:
        self.source, self.read = source, 0

    @property
    def ended(self) -> bool:
        return self.source.ended

    def next(self, *, wait: bool = True) -> InputLine | None:
        line = self.source.next(wait=wait)
        self.read += line is not None
        return line


def test_lines_are_read_as_they_are_answered(lm: pophood.LM) -> None:
    """A long line does not make the rest of a large file wait in memory."""
    short = {"prompt": "a", "max_tokens": 1}
    lines = [{"prompt": "a", "max_tokens": 120, "stop_ids": []}, *[short] * 900]
    source = Counted(source_of(lines))
    with Answering(BatchModel(lm, LineDefaults(seed=SEED)), together=4) as answering:
        records = answering.records(source)
        next(records)
        assert source.read <= 4 * AHEAD
        before = source.read
        for done, _ in enumerate(records, 1):
            assert source.read <= max(before, done + 4 * AHEAD)
    assert source.read == 901


def test_a_pipe_gets_answers_before_it_ends(lm: pophood.LM) -> None:
    """Whoever waits for an answer before writing the next line gets it."""
    reading, writing = os.pipe()
    asked, told = os.fdopen(writing, "wb", buffering=0), list[dict[str, Any]]()

    def talk(records: Iterator[dict[str, Any]]) -> None:
        for record in records:
            told.append(record)
            if len(told) < 4:
                asked.write(written([{"prompt": "the cat", "max_tokens": 3}] * (1 + len(told) % 2)))
            elif not asked.closed:
                asked.close()

    with os.fdopen(reading, "rb", buffering=0) as file:
        asked.write(written([{"prompt": "a", "max_tokens": 3}]))
        with Answering(BatchModel(lm, LineDefaults(seed=SEED)), together=4) as answering:
            thread = threading.Thread(target=talk, args=(answering.records(LineSource(file, "pipe")),))
            thread.start()
            thread.join(600)
            assert not thread.is_alive()
    assert [record["line"] for record in told] == list(range(1, len(told) + 1)) and len(told) >= 4


def test_an_error_of_the_engine_ends_one_line(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"prompt": "the cat", "max_tokens": 6, "temperature": 0}] * 5
    wanted = answered(lm, lines, together=5)
    real, calls = type(lm.engine).summary, list[int]()

    def failing(self: Any, batch: Any, *rest: Any, **named: Any) -> Any:
        calls.append(len(batch))
        # Together they fail; then each alone, of which one fails again.
        if (len(batch) > 1 and len(calls) > 3) or len(calls) == 5:
            raise EngineError("a NaN")
        return real(self, batch, *rest, **named)

    monkeypatch.setattr(type(lm.engine), "summary", failing)
    got = answered(lm, lines, together=5)
    failed = [record for record in got if "error" in record]
    assert len(failed) == 1 and failed[0]["error"] == {"message": "a NaN", "code": "engine_error"}
    assert [one for one in got if "error" not in one] == [
        one for one in wanted if one["line"] != failed[0]["line"]
    ]


@pytest.mark.parametrize("place", ["reading", "answering"])
def test_a_bug_costs_one_line(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def broken(*_: object) -> Any:
        return 1 // 0

    name = "scored" if place == "reading" else "_scores"
    module = parse if place == "reading" else __import__("pophood.batch.scoring", fromlist=["scoring"])
    monkeypatch.setattr(module, name, broken)
    short = {"prompt": "a", "max_tokens": 1}
    one, two, three = answered(lm, [short, {"text": "a cat", "score": True}, short])
    assert "error" not in one and "error" not in three
    assert two["error"]["message"].startswith("a bug in pophood, please report it: ZeroDivisionError")


def test_a_request_that_can_never_fit_is_told_so(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchModel, "blocks", lambda self, together: 2)
    lines = [{"prompt": "a", "max_tokens": 100}, {"prompt": "a", "max_tokens": 5}]
    large, small = answered(lm, lines)
    assert "the request needs 4 blocks of keys and values, and 2 are there" in large["error"]["message"]
    assert small["outputs"]


def test_adapters_are_packed_and_unpacked(lm: pophood.LM) -> None:
    """A million scales do not fill the memory."""
    scales = [{"name": "a", "scale": i / 100} for i in range(60)]
    lines = [{"prompt": "the cat", "max_tokens": 2, "adapters": [scale]} for scale in scales]
    model = BatchModel(lm, LineDefaults(seed=SEED))
    most = 0
    with Answering(model, together=4) as answering:
        for record in answering.records(source_of(lines)):
            assert "outputs" in record
            most = max(most, len(answering._packed._packed))
    assert 16 < most <= 16 + 4 + 4
    assert answering._packed._packed == {}


def test_seeds_depend_on_the_run_and_the_line_alone(lm: pophood.LM) -> None:
    line = {"prompt": "the cat", "max_tokens": 10, "temperature": 1.5, "top_k": 0}
    records = answered(lm, [line] * 4)
    assert len({record["seed"] for record in records}) == 4
    assert len({record["outputs"][0]["completion"] for record in records}) == 4
    others = answered(lm, [{"prompt": "b", "max_tokens": 1}, "", line, line])
    assert [one["outputs"] for one in others[1:]] == [one["outputs"] for one in records[2:]]
    assert answered(lm, [line], seed=6)[0]["seed"] != records[0]["seed"]
    again = {**line, "seed": records[2]["seed"]}
    assert answered(lm, [again])[0]["outputs"] == records[2]["outputs"]


def test_facts_name_what_answers_depend_on(lm: pophood.LM, folder: Path) -> None:
    facts = BatchModel(lm, LineDefaults(seed=SEED)).facts()
    assert json.loads(facts.encode())["adapters"][0][:2] == ["a", 0.5]
    plain = BatchModel(pophood.load(folder), LineDefaults(seed=SEED)).facts()
    assert (plain.weights, plain.adapters) == (facts.weights, [])


def test_more_samples_than_texts_at_a_time(lm: pophood.LM) -> None:
    lines = [{"prompt": "the cat", "n": n, "max_tokens": 5} for n in (1, 20, 2)]
    few, many = (answered(lm, lines, together=together, most_samples=256) for together in (2, 32))
    assert few == many and len(few[1]["outputs"]) == 20
    (refused,) = answered(lm, [lines[0] | {"n": 257}], most_samples=256)
    assert (refused["line"], refused["error"]["param"]) == (1, "n")
    assert refused["error"]["message"] == "n is 257; wanted at most 256"
