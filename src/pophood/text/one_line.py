"""The text of somebody else's error as one line that is safe to print."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The first line of an error's text, without the characters that steer a terminal; at most 200.

    >>> one_line(ValueError("no\\x1b[2J good\\nat all"))
    'no?[2J good'
    """
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return "".join(character if character.isprintable() else "?" for character in first)
