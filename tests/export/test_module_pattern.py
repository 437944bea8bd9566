"""Patterns of module names, compared with Python's `re` as PEFT uses it, and some that take `re` years."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.adapters.module_pattern import MOST_COUNT, ModulePatterns, PatternError

NAMES = (
    "model.layers.3.self_attn.q_proj",
    "model.layers.13.mlp.up_proj",
    "transformer.h.0.attn.c_attn",
    "lm_head",
    "",
    "a..b.",
)


def by_peft(pattern: str, name: str) -> bool:
    """Match as PEFT 0.21 does (get_pattern_key in utils/other.py)."""
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        r"q_proj$",
        r"^model.layers.3.self_attn.q_proj",
        r"^model\.layers\.\d+\..*",
        r"layers\.[0-9]\..*proj",
        r".*\.layers\.3\..*(q_proj|k_proj)$",
        r"(?:model|transformer)\..*",
        r"(?P<block>layers\.\d{2})\.mlp\.(up|down)_proj",
        r"h\.\d+\.attn\.c_\w{4}",
        r"h\.\d{1,}\..*?c_[^b]+",
        r"(layers\.(1|3)+\..*)",
        r"[]x-z._a-m]+",
        r"[^\W\d]+",
        r"lm_(head)?",
        r"()|a",
        r"(a*)*b?\.",
        r"(a?){3}(\.)*(b|)\.",
        r"\S+\.q_proj",
        r"q\_proj",
        r"x{|{}|lm_head",
        r"(^|x)lm_head($|y)",
        r"l{,1}m_head",
        r".{0}lm_head.{0,0}",
    ],
)
def test_the_same_names_match(pattern: str) -> None:
    patterns = ModulePatterns([pattern])
    assert {name: patterns.first(name) is not None for name in NAMES} == {
        name: by_peft(pattern, name) for name in NAMES
    }


PIECES = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", r"\d", "^", "$", "", "0"])
PATTERNS = st.recursive(
    PIECES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{,2}", "{2,}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, st.text("ab.0", max_size=7))
def test_random_patterns(pattern: str, name: str) -> None:
    assert (ModulePatterns([pattern]).first(name) is not None) == by_peft(pattern, name)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b",
        r"(a*)*(a*)*(a*)*b",
        r"(a|a)*b",
        r"(.*.*.*.*.*.*)*b",
        r"((((((a?){50}){50}){50}){50}){50}){50}b",
        r"(.*a){12}b",
    ],
)
def test_a_hostile_pattern_ends(pattern: str) -> None:
    """Python's re would not finish before the time-out of the test."""
    patterns = ModulePatterns([pattern])
    try:
        assert all(patterns.first("a" * 200 + str(i)) is None for i in range(20))
    except PatternError as error:
        assert "take too long" in str(error)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a", "opens a group that it does not close"),
        (r"a)", "closes a group that it does not open"),
        (r"[a", "opens a class"),
        (r"*a", "has nothing before it to repeat"),
        (r"a**", "repeats a repetition"),
        (r"a*+", "repeats possessively"),
        (r"(?=a)b", "uses (?=a"),
        (r"(?i:a)", "uses (?i:"),
        (r"(a)\1", r"uses \1"),
        (r"\bq_proj", r"uses \b"),
        (f"a{{{MOST_COUNT + 1}}}", "counts to more than 1,000"),
        (r"a{99999999999999999999}", "counts to more than 1,000"),
        (r"a{3,2}", "not a regular expression"),
        (r"[z-a]*", "not a regular expression"),
        ("(" * 500 + ")" * 500, "more than 20 nested groups"),
        ("a*" * 600, "has 1,200 characters"),
        ("\\", "not a regular expression"),
    ],
)
def test_what_is_not_read_is_named(pattern: str, words: str) -> None:
    with pytest.raises(PatternError) as caught:
        ModulePatterns([pattern])
    assert words in str(caught.value)


def test_a_long_name_is_refused() -> None:
    with pytest.raises(PatternError, match="name has 5,000 characters"):
        ModulePatterns(["a*"]).first("a" * 5000)


def test_the_first_pattern_wins() -> None:
    patterns = ModulePatterns(["up_proj", ".*proj", "q_proj"])
    assert [patterns.first(f"model.layers.0.{name}") for name in ("q_proj", "up_proj", "norm")] == [
        ".*proj",
        "up_proj",
        None,
    ]
