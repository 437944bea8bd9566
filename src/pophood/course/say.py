"""`say`: in the notebook, a sentence that was computed from the model is shown as text and not as a string.

This is a file of its own because the notebook imports it by name; the players show such cells themselves.
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
    """The text as Markdown for Jupyter, and as it is elsewhere.

    >>> say("The norms **grow**.")
    The norms **grow**.
    """
    return _Prose(text)
