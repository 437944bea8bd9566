"""Settings are checked when they are made, and an error says what, got and wanted."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from pophood.errors import BadInput
from pophood.sampling import RANGES, STEPS, SamplingSettings, chain, parse_order

WRONG: list[tuple[str, Any, str]] = [
    ("temperature", -0.1, "0 or more"),
    ("temperature", math.nan, "0 or more"),
    ("temperature", math.inf, "0 or more"),
    ("temperature", "hot", "'hot'"),
    ("temperature", True, "True"),
    ("top_k", -1, "a whole number, 0 or more (0 switches it off)"),
    ("top_k", 40.5, "40.5"),
    ("top_p", 1.5, "a number from 0 to 1 (1 switches it off)"),
    ("top_p", -0.1, "-0.1"),
    ("min_p", 2, "from 0 to 1 (0 switches it off)"),
    ("typical_p", 1.01, "1.01"),
    ("repetition_penalty", 0, "0.001 or more"),
    ("presence_penalty", math.nan, "a number"),
    ("frequency_penalty", math.inf, "a number"),
    ("penalty_window", -2, "-1 or more"),
    ("dry_multiplier", -1, "0 or more"),
    ("dry_base", 0.5, "1 or more"),
    ("dry_allowed_length", 0, "1 or more"),
    ("dry_window", -5, "-1 or more"),
    ("xtc_probability", 1.1, "0 to 1"),
    ("xtc_threshold", 0.6, "from 0 to 0.5"),
    ("min_tokens", -1, "0 or more"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_a_value_out_of_range_is_named(name: str, value: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        SamplingSettings(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} (")
    assert f"is {value!r}; wanted" in message
    assert words in message
    assert "\n" not in message


def test_every_numeric_setting_has_a_range() -> None:
    others = {"dry_breakers", "logit_bias", "order"}
    assert {f.name for f in fields(SamplingSettings)} - others == set(RANGES)
    assert {name for name, *_ in WRONG} == set(RANGES)
    assert {r.step for r in RANGES.values()} - {""} == set(STEPS) - {"bias"}


def test_numpy_numbers_are_numbers() -> None:
    settings = SamplingSettings(temperature=float(np.float32(0.5)), top_k=int(np.int64(3)))
    assert chain(settings).describe() == "logits -> top_k 3 -> temperature 0.5 -> draw"
    assert SamplingSettings(logit_bias={np.int64(3): np.float32(1)}).logit_bias  # type: ignore[dict-item]


@pytest.mark.parametrize("bias", [{-1: 1.0}, {1.5: 1.0}, {1: math.nan}, {1: math.inf}, {1: "x"}, {True: 1.0}])
def test_a_wrong_bias_is_named(bias: Any) -> None:
    with pytest.raises(BadInput, match="logit_bias"):
        SamplingSettings(logit_bias=bias)


@pytest.mark.parametrize("breakers", [((),), (("a",),), ((1.5,),)])
def test_wrong_breakers_are_named(breakers: Any) -> None:
    with pytest.raises(BadInput, match="dry_breakers"):
        SamplingSettings(dry_breakers=breakers)


def test_an_unknown_or_doubled_step_lists_the_steps() -> None:
    with pytest.raises(
        BadInput, match=r"'top_q', which does not exist; the steps are bias, penalties, dry, top_k"
    ):
        SamplingSettings(order=("top_k", "top_q"))
    with pytest.raises(BadInput, match=r"'top_k' twice; wanted each at most once of bias, penalties"):
        SamplingSettings(order=("top_k", "min_p", "top_k"))
    with pytest.raises(BadInput, match="is the text 'top_k'"):
        SamplingSettings(order="top_k")  # type: ignore[arg-type]


def test_a_setting_whose_step_is_left_out_is_an_error() -> None:
    assert SamplingSettings(order=("temperature",)).top_k == 40  # a default is not a request
    with pytest.raises(BadInput, match=r"top_p is 0.9, but the order leaves out its step 'top_p'"):
        SamplingSettings(top_p=0.9, order=("temperature",))
    with pytest.raises(BadInput, match=r"temperature is 0, but the order leaves out"):
        SamplingSettings(temperature=0, order=("top_k",))
    with pytest.raises(BadInput, match="leaves out its step 'bias'"):
        SamplingSettings(logit_bias={1: 1.0}, order=("temperature",))


def test_the_order_as_typed() -> None:
    assert parse_order("top_k,temperature") == ("top_k", "temperature")
    assert parse_order("penalties; top-k min-p") == ("penalties", "top_k", "min_p")
    assert SamplingSettings(order=parse_order(" ".join(STEPS))) == SamplingSettings()
