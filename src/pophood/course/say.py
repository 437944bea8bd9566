"""`say` and `in_language` (small: the notebook imports them): its sentences, and its other languages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pophood.course.answers import Verdict, check
from pophood.course.needs import need
from pophood.course.words import words_in
from pophood.phrases import speak


class _Prose:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_markdown_(self) -> str:
        return self._text


def say(text: str) -> _Prose:
    """Return an object that Jupyter shows as Markdown, and that prints as the plain text elsewhere.

    The other players show the sentences of such cells themselves.

    >>> say("The norms **grow**.")
    The norms **grow**.
    """
    return _Prose(text)


def in_language(language: str) -> tuple[Callable[[object, object], Verdict], Callable[[str], None]]:
    """Return `check` and `need` in another language, which views speak too from now on. BadInput if unknown.

    >>> check, _ = in_language("en")
    >>> print(check("5", 5))
    Right: 5.
    """
    words = words_in(language)
    speak(language)
    return partial(check, words=words), partial(need, words=words)
