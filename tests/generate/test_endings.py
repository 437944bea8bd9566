"""However a run ends, every sequence is dropped, and the prefix cache knows what it keeps."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.errors import Cancelled, EngineError
from pophood.generate import GenerateSettings, PrefixCache, Token, generate
from pophood.sampling import SamplingSettings
from tests.generate.mock import MockDecoder, MockTokenizer
from tests.generate.runs import END, LETTERS, PROMPT, TOKENIZER, by_sample, run


def test_nothing_happens_before_the_first_token_is_asked_for() -> None:
    engine = MockDecoder()
    this = run(engine, samples=3)
    assert (engine.calls, engine.sequences) == ([], {})
    this.close()
    assert engine.sequences == {}


@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("way", ["close", "with", "forget"])
def test_a_run_given_up_leaves_no_sequence(after: int, way: str, with_prefix: bool) -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine) if with_prefix else None
    this = run(engine, prefix=prefix, samples=3, stop_ids=())
    if way == "with":
        with this:
            for _ in range(after):
                next(this)
    else:
        for _ in range(after):
            next(this)
        if way == "close":
            this.close()
        del this
        gc.collect()
    assert len(engine.sequences) == (1 if with_prefix and after else 0)
    if prefix is not None:
        assert len(prefix) == len(engine.sequences)


@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("call", [1, 2, 4])
@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt(), Cancelled("stopped"), EngineError("NaN"), MemoryError()]
)
def test_an_error_of_the_engine_leaves_no_sequence(
    failure: BaseException, call: int, with_prefix: bool
) -> None:
    engine = MockDecoder()
    engine.failure, engine.fail_at = failure, call
    prefix = PrefixCache(engine) if with_prefix else None
    shown: list[Token] = []
    with pytest.raises(type(failure)):
        shown.extend(run(engine, prefix=prefix, samples=3, stop_ids=()))
    assert len(shown) == 3 * (call - 1)  # every computed token was yielded
    assert len(engine.sequences) == int(with_prefix and call > 1)
    engine.failure = None
    if prefix is not None:  # the prefix cache has the right tokens
        again = run(engine, prefix=prefix, samples=3)
        assert by_sample(list(again)) == by_sample(list(run(MockDecoder(), samples=3)))
        assert again.reused == (len(PROMPT) - 1 if call > 1 else 0)


def test_a_row_that_is_not_a_number_leaves_no_sequence() -> None:
    engine = MockDecoder()
    engine.nan_at = 3
    with pytest.raises(EngineError, match="1 of 16 logits for position 6"):
        list(run(engine, samples=2, stop_ids=()))
    assert engine.sequences == {}


def test_the_cancel_flag_reaches_the_engine() -> None:
    engine, flag = MockDecoder(), object()
    list(generate(engine, TOKENIZER, PROMPT, GenerateSettings(max_tokens=2, stop_ids=()), cancel=flag))
    assert engine.cancels == [flag, flag]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 13), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.booleans(),
)
def test_any_run_stopped_anywhere_is_a_beginning_of_the_whole(
    prompt: list[int], samples: int, seed: int, after: int, with_prefix: bool
) -> None:
    engine = MockDecoder(context=40)
    prefix = PrefixCache(engine) if with_prefix else None
    values: dict[str, Any] = {"samples": samples, "seed": seed, "max_tokens": None, "stop": ("END", "c\n")}
    whole = by_sample(list(run(engine, prompt, prefix=prefix, **values)))
    part = []
    with run(engine, prompt, prefix=prefix, **values) as this:
        for token in this:
            part.append(token)
            if len(part) > after:
                break
    for sample, tokens in by_sample(part).items():
        assert whole[sample][: len(tokens)] == tokens
    assert len(engine.sequences) == int(with_prefix)


def test_stops_are_asked_for_and_not_listed() -> None:
    """Listing them renders the chat template, which costs more than reading a short prompt."""

    class Unlisted(dict[int, str]):
        def __iter__(self) -> Iterator[int]:
            raise AssertionError("the stops were listed")

    tokenizer: Any = MockTokenizer([*LETTERS, b"", b"\xc3"], specials={END: "<end>"})
    tokenizer.stops = Unlisted({END: "eos_token"})
    engine = MockDecoder()
    engine.script, engine.prompt_length = [1, 2, END, 3], len(PROMPT)
    greedy = GenerateSettings(sampling=SamplingSettings(temperature=0), max_tokens=4)
    tokens = list(generate(engine, tokenizer, PROMPT, greedy))
    assert [token.id for token in tokens] == [1, 2, END] and tokens[-1].finish == "stop"
