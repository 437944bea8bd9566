"""Names from files as messages show them. It imports nothing, so that looking for models stays quick."""

from __future__ import annotations


def quoted(text: str, limit: int = 80) -> str:
    """A name from a file as one line of harmless ASCII: no line breaks, no terminal escapes, not too long.

    >>> quoted("a" + chr(27) + "[2J")
    "'a\\\\x1b[2J'"
    """
    return ascii(text if len(text) <= limit else text[:limit] + "...")
