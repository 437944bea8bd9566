"""The phrases of a language: what the players, the notebook and the slides say themselves (`words.toml`).

Every language has the keys of English. A phrase is a text with {braces} to fill in; a few are lists of words
that a reader may type.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from pophood.errors import BadFile, BadInput

Words = Mapping[str, str]
FILE = "words.toml"
USUAL = "en"


def languages() -> tuple[str, ...]:
    """Return the languages of the course: the folders with a `words.toml`."""
    folders = (entry for entry in files(__package__).iterdir() if entry.is_dir())
    return tuple(sorted(entry.name for entry in folders if entry.joinpath(FILE).is_file()))


def folder_of(language: str) -> Traversable:
    """Return the folder of a language. Raises BadInput for an unknown one."""
    if language not in languages():
        raise BadInput(f"there is no course in {language!r}; the languages are: {', '.join(languages())}")
    return files(__package__).joinpath(language)


@cache
def words_in(language: str = USUAL) -> Words:
    """Return the phrases of a language. Raises BadInput for an unknown one."""
    return read_words(folder_of(language))


def read_words(folder: Traversable) -> dict[str, str]:
    """Read the phrases of a folder. Raises BadFile unless the keys are those of English."""

    def read(place: Traversable) -> dict[str, object]:
        try:
            return tomllib.loads(place.joinpath(FILE).read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BadFile(f"{place.name}/{FILE}: {error}") from None

    words = read(folder)
    english = read(files(__package__).joinpath(USUAL))
    if missing := sorted(set(english) ^ set(words)):
        raise BadFile(f"{folder.name}/{FILE}: wanted the keys of en/{FILE}; differs: {missing[0]}")
    return {key: str(value) for key, value in words.items()}


def listed(phrase: str) -> tuple[str, ...]:
    """Return the words of a list.

    >>> listed("yes, y")
    ('yes', 'y')
    """
    return tuple(word.strip() for word in phrase.split(","))
