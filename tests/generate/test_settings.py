"""Settings of a run: their ranges, and how a prompt that is too long is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pophood.errors import BadInput, ContextOverflow
from pophood.generate.settings import GenerateSettings, Truncation, fit
from pophood.sampling import SamplingSettings


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("samples", 0, "samples is 0; wanted a whole number, 1 or more"),
        ("samples", 2.0, "samples is 2.0"),
        ("first_sample", -1, "0 or more"),
        ("max_tokens", 0, "1 or more"),
        ("max_tokens", True, "True"),
        ("top", 0, "1 or more"),
        ("seed", -1, "from 0 to 18446744073709551615"),
        ("seed", 2**64, "from 0 to 18446744073709551615"),
        ("seed", "x", "seed is 'x'"),
        ("details", "all", "wanted one of plain, probability, top"),
        ("truncate", "right", "wanted one of error, left, middle"),
        ("stop", ("",), "stop holds ''"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        GenerateSettings(**{name: value})
    assert words in str(caught.value)


def test_a_minimum_over_the_maximum_is_an_error() -> None:
    with pytest.raises(BadInput, match="min_tokens is 20, over max_tokens, 10"):
        GenerateSettings(sampling=SamplingSettings(min_tokens=20), max_tokens=10)


def test_a_prompt_that_fits_stays_whole() -> None:
    ids = tuple(range(10))
    for truncate in ("error", "left", "middle"):
        assert fit(ids, 10, GenerateSettings(truncate=truncate)) == (ids, None)


def test_too_long_is_an_error_with_both_counts() -> None:
    with pytest.raises(
        ContextOverflow, match="the text has 1,100 tokens; the context window holds 1,024"
    ) as caught:
        fit(range(1_100), 1_024, GenerateSettings())
    assert (caught.value.got, caught.value.limit) == (1_100, 1_024)


def test_truncation_by_hand() -> None:
    # window 10, 4 new tokens, the last of which is never fed back: 7 of 20 remain
    left, cut = fit(range(20), 10, GenerateSettings(max_tokens=4, truncate="left"))
    assert left == (13, 14, 15, 16, 17, 18, 19)
    assert cut == Truncation("left", 20, 13, 0)
    assert str(cut) == "the prompt has 20 tokens; 13 were dropped from its beginning"
    middle, cut = fit(range(20), 10, GenerateSettings(max_tokens=4, truncate="middle"))
    assert middle == (0, 1, 2, 16, 17, 18, 19)
    assert cut == Truncation("middle", 20, 13, 3)
    assert str(cut) == "the prompt has 20 tokens; 13 were dropped from its middle"


def test_start_tokens_survive_a_cut_from_the_left() -> None:
    left, cut = fit(range(20), 10, GenerateSettings(max_tokens=4, truncate="left"), start=(0, 1))
    assert left == (0, 1, 15, 16, 17, 18, 19)
    assert cut == Truncation("left", 20, 13, 2)
    other, _ = fit(range(20), 10, GenerateSettings(max_tokens=4, truncate="left"), start=(5,))
    assert other == (13, 14, 15, 16, 17, 18, 19)


@given(
    st.integers(1, 50),
    st.integers(1, 200),
    st.one_of(st.none(), st.integers(1, 300)),
    st.sampled_from(["left", "middle"]),
    st.integers(0, 3),
)
def test_a_cut_prompt_leaves_room(
    context: int, more: int, max_tokens: int | None, kind: Any, start: int
) -> None:
    ids = tuple(range(context + more))
    settings = GenerateSettings(max_tokens=max_tokens, truncate=kind)
    kept, cut = fit(ids, context, settings, start=ids[:start])
    assert cut is not None
    assert 1 <= len(kept) <= context
    assert len(kept) == len(ids) - cut.dropped
    assert kept == ids[: cut.at] + ids[cut.at + cut.dropped :]
    assert kept[-1] == ids[-1]
    room = context + 1 - len(kept)  # tokens that can be generated
    assert room >= min(max_tokens or context, max(context // 2, 1))
    if kind == "middle" and len(kept) > 1:
        assert kept[0] == 0
