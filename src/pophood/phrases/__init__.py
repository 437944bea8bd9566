"""The language that pophood speaks: English where nothing else is said, another by its table of phrases.

    with speaking("es"):
        phrase("{n} tokens are left", n=3)   # "quedan 3 tokens"

A phrase is written in English where it is used, and is its own key; `es.toml` has the Spanish for each, with
the fields of the English, their formats included. tests/test_phrases.py compares the tables with the code.
The pages of the course have texts of their own (`course/es`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

from pophood.errors import BadInput

Text = TypeVar("Text", bound=str)
USUAL = "en"
COLUMNS = "columns"  # the section of a table with the headings of columns
_chosen: ContextVar[str] = ContextVar("language", default="")
_process = [USUAL]


def phrase(english: str, **fields: object) -> str:
    """Return a phrase in the language in use, its {fields} filled in; English where the table lacks it.

    >>> phrase("{n:,} of {all} tokens", n=1024, all=2048)
    '1,024 of 2048 tokens'
    """
    language = spoken()
    words = english if language == USUAL else table_of(language).get(english, english)
    return words.format(**fields) if fields else words


def heading(column: str) -> str:
    """Return the heading of a table's column in the language in use; in English, the column's own name.

    >>> heading("token_text")
    'token_text'
    """
    language = spoken()
    return column if language == USUAL else columns_of(language).get(column) or phrase(column)


def later(english: Text) -> Text:
    """Mark a constant whose phrase is looked up where it is used; it is returned as it is."""
    return english


def spoken() -> str:
    """Return the language in use: that of the block, else that of the process."""
    return _chosen.get() or _process[0]


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Speak a language inside a `with` block. Raises BadInput for an unknown one.

    >>> with speaking("es"):
    ...     spoken()
    'es'
    """
    token = _chosen.set(checked(language))
    try:
        yield
    finally:
        _chosen.reset(token)


def speak(language: str) -> None:
    """Speak a language from now on, in the whole process: for notebooks. Raises BadInput for others."""
    _process[0] = checked(language)


def languages() -> tuple[str, ...]:
    """Return the languages: English, and each that has a table."""
    from importlib.resources import files  # here, since English needs no table

    tables = (entry.name for entry in files(__package__).iterdir() if entry.name.endswith(".toml"))
    return USUAL, *sorted(name.removesuffix(".toml") for name in tables)


def checked(language: str) -> str:
    """Return the code of a language if there is a table for it. Raises BadInput otherwise."""
    if language not in languages():
        raise BadInput(f"there are no phrases in {language!r}; the languages are: {', '.join(languages())}")
    return language


@cache
def table_of(language: str) -> Mapping[str, str]:
    """Return the table of a language: English phrase -> its phrase. The sections only put it in order."""
    sections = [section for name, section in _sections(language).items() if name != COLUMNS]
    return {english: words for section in sections for english, words in section.items()}


def columns_of(language: str) -> Mapping[str, str]:
    """Return the headings of tables in a language: the column's name -> its heading."""
    return _sections(language)[COLUMNS]


@cache
def _sections(language: str) -> Mapping[str, Mapping[str, str]]:
    import tomllib
    from importlib.resources import files

    return tomllib.loads(files(__package__).joinpath(f"{language}.toml").read_text("utf-8"))
