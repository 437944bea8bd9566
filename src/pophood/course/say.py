"""`say` (small: the notebook imports it): shows the sentence that a cell computes without quotation marks.

The other players show such cells themselves.
"""

from __future__ import annotations


class _Prose:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_markdown_(self) -> str:
        return self._text


def say(text: str) -> _Prose:
    """Return an object that Jupyter shows as Markdown, and that prints as the plain text elsewhere.

    >>> say("The norms **grow**.")
    The norms **grow**.
    """
    return _Prose(text)
