"""Stop strings: never shown, however the text is cut, and recognised where a plain search finds them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.errors import BadInput
from pophood.generate import StopStrings

TEXT = st.text(alphabet="ab", max_size=40)  # two letters: repeats and overlaps everywhere
STRINGS = st.lists(st.text(alphabet="ab", min_size=1, max_size=6), max_size=3)


def search(text: str, strings: list[str]) -> tuple[str, str | None]:
    """Search the whole text: the first place where a string is complete, and the longest such string."""
    for end in range(1, len(text) + 1):
        complete = [string for string in strings if text[:end].endswith(string)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(borders)]


@settings(max_examples=500)
@given(TEXT, STRINGS, st.lists(st.integers(0, 40), max_size=10))
def test_any_pieces_give_what_the_plain_search_gives(text: str, strings: list[str], cuts: list[int]) -> None:
    stops = StopStrings(strings)
    shown = "".join(stops.push(piece) for piece in pieces_of(text, cuts))
    if stops.found is None:
        shown += stops.flush()
    assert (shown, stops.found) == search(text, strings)


@settings(max_examples=300)
@given(TEXT, STRINGS)
def test_only_what_may_become_a_stop_string_is_held_back(text: str, strings: list[str]) -> None:
    stops = StopStrings(strings)
    shown = ""
    for i, character in enumerate(text, 1):
        shown += stops.push(character)
        if stops.found is not None:
            return
        held = text[len(shown) : i]
        assert text[:i] == shown + held
        assert not held or any(string.startswith(held) for string in strings)
        longer = range(len(held) + 1, i + 1)
        assert not any(
            string.startswith(text[i - n : i]) and n < len(string) for string in strings for n in longer
        )


def test_by_hand() -> None:
    stops = StopStrings(["\n\n", "User:"])
    assert [stops.push(piece) for piece in ("Hi", "\n", "Us", "ing", " it.\n", "User", ":", "more")] == [
        "Hi",
        "",
        "\n",
        "Using",
        " it.",
        "\n",
        "",
        "",
    ]
    assert stops.found == "User:"
    assert stops.flush() == ""


def test_overlapping_beginnings() -> None:
    stops = StopStrings(["aab"])
    assert stops.push("aaaa") == "aa"
    assert stops.push("b") == ""
    assert stops.found == "aab"


def test_of_two_that_end_together_the_longer_is_found() -> None:
    stops = StopStrings(["b", "ab"])
    assert (stops.push("xab"), stops.found) == ("x", "ab")


def test_a_failed_beginning_may_be_another_beginning() -> None:
    stops = StopStrings(["aab"])
    assert (stops.push("caaab"), stops.found) == ("ca", "aab")


def test_no_strings_hold_nothing_back() -> None:
    stops = StopStrings([])
    assert (stops.push("abc"), stops.flush(), stops.found) == ("abc", "", None)


@pytest.mark.parametrize("strings", [[""], ["a", ""], [3], [b"a"]])
def test_a_stop_string_has_a_character(strings: Any) -> None:
    with pytest.raises(BadInput, match="stop holds"):
        StopStrings(strings)


def test_one_text_is_one_stop_string() -> None:
    stops = StopStrings("END")
    assert stops.push("ENDE") == ""
    assert stops.found == "END"
