"""The picker: the model's options, going back without computing, ends, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pophood
from pophood.errors import BadInput
from pophood.pick import Picker
from tests.tiny import tiny_folder

PROMPT = "The capital of Spain is"


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return pophood.load(tiny_folder(tmp_path_factory.mktemp("pick") / "tiny", "gpt2", seed=5))


def picker_of(lm: pophood.LM, prompt: str = PROMPT, **options: Any) -> Picker:
    return Picker(lm.engine, lm.bundle.tokenizer, lm.tokenize(prompt), **options)


def test_options_are_those_of_next(lm: pophood.LM) -> None:
    with picker_of(lm) as picker:
        table = lm.next(PROMPT)
        assert [option.id for option in picker.options] == table.column("token_id")
        for option, row in zip(picker.options, table, strict=True):
            assert option.text == row["token_text"] and option.logit == row["logit"]
            assert option.probability == pytest.approx(row["probability"])


def test_enter_all_the_way_is_greedy(lm: pophood.LM) -> None:
    greedy = lm.generate(PROMPT, max_tokens=8, temperature=0)
    with picker_of(lm) as picker:
        for _ in range(8):
            picker.pick()
        assert picker.text == greedy.completion
        assert [pick.option.id for pick in picker.picks] == [token.id for token in greedy.tokens]
        assert picker.probability == pytest.approx(math.prod(p.option.probability for p in picker.picks))


class Counting:
    """An engine that counts computed tokens and sequences that were not dropped."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.computed = self.left = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def new_sequence(self) -> Any:
        self.left += 1
        return self._engine.new_sequence()

    def drop(self, sequence: int) -> None:
        self.left -= 1
        self._engine.drop(sequence)

    def logits(self, batch: Any, cancel: Any = None) -> Any:
        self.computed += sum(len(ids) for _, ids in batch)
        return self._engine.logits(batch, cancel)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.one_of(st.integers(1, 10), st.just("b")), max_size=12))
def test_any_walk_back_and_forth_is_the_text_that_stands(lm: pophood.LM, moves: list[Any]) -> None:
    """After every move the options have the bits of a fresh pass, and going back computes nothing."""
    counted: Any = Counting(lm.engine)
    stack: list[int] = []
    with Picker(counted, lm.bundle.tokenizer, lm.tokenize(PROMPT)) as picker:
        for move in moves:
            before = counted.computed
            if move == "b":
                if not stack:
                    with pytest.raises(BadInput, match="nothing to go back to"):
                        picker.back()
                else:
                    assert picker.back().option.id == stack.pop()
                assert counted.computed == before
            else:
                stack.append(picker.pick(move).option.id)
                assert counted.computed == before + 1
            assert [pick.option.id for pick in picker.picks] == stack
        row = lm.logits([*lm.tokenize(PROMPT), *stack])[-1]
        order = np.argsort(-row, kind="stable")[:10]
        assert [option.id for option in picker.options] == order.tolist()
        assert [option.logit for option in picker.options] == [float(x) for x in row[order]]
    assert counted.left == 0, "no sequence is left"


def go_on_after_going_back(picker: Picker) -> None:
    picker.back()
    assert picker.ended is None and picker.pick(2).number == 2


def test_ends_and_back_from_them(lm: pophood.LM) -> None:
    with picker_of(lm, most=2) as picker:
        picker.pick(3)
        picker.pick(1)
        assert picker.ended == "length"
        with pytest.raises(BadInput, match=r"the text has ended \(length\)"):
            picker.pick()
        go_on_after_going_back(picker)
    long = "a " * 63  # 127 tokens and the final space: 128 positions in all
    with picker_of(lm, long) as picker:
        room = 128 - len(picker.prompt_ids)
        for _ in range(room):
            picker.pick()
            assert picker.ended is None
        picker.pick()
        assert picker.ended == "context", "the last one is not fed back"
        go_on_after_going_back(picker)


def test_a_stop_token_ends_the_text_and_is_hidden(lm: pophood.LM) -> None:
    prompt_ids = lm.tokenize(PROMPT)
    for special in (False, True):
        with Picker(lm.engine, lm.bundle.tokenizer, prompt_ids, shown=50_257, special=special) as picker:
            number = [option.id for option in picker.options].index(50_256) + 1
            picker.pick(number)
            assert picker.ended == "stop" and picker.text == ("<|endoftext|>" if special else "")
            go_on_after_going_back(picker)


@pytest.mark.parametrize("number", [0, 11, -1])
def test_a_number_that_is_not_there(lm: pophood.LM, number: int) -> None:
    with (
        picker_of(lm) as picker,
        pytest.raises(BadInput, match=f"there is no number {number}: wanted 1 to 10"),
    ):
        picker.pick(number)
