"""Errors: the old name of one class, and texts that are safe to print."""

from __future__ import annotations

import pytest

from pophood import errors
from pophood.errors import NotFound, one_line, quoted


def test_the_old_name_of_not_found_still_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="NotHere is now NotFound"):
        old = errors.NotHere
    assert old is NotFound
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = errors.Nothing


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202eabc", "x" * 1_000])
def test_no_text_steers_a_terminal(text: str) -> None:
    for shown in (one_line(ValueError(text)), quoted(text)):
        assert shown.isprintable() and len(shown) <= 200


def test_an_error_without_text_is_shown_by_its_class() -> None:
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
