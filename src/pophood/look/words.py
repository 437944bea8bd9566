"""The words and sentences that come with the views, and a reader of word files. No model here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pophood.errors import BadInput, NotFound
from pophood.phrases import later
from pophood.plaintext import decode, read_bytes

Pair = tuple[str, str]
MOST_BYTES = 1 << 20  # largest word file


@dataclass(frozen=True, slots=True)
class WordList:
    """Words in groups, each drawn with its own mark, and the pairs of related words."""

    name: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    pairs: tuple[Pair, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """All words in order."""
        return tuple(word for _, words in self.groups for word in words)


_FAMILY = (
    (later("relatives"), ("father", "mother", "brother", "sister")),
    (later("people"), ("man", "woman", "boy", "girl")),
    (later("animals"), ("dog", "cat", "horse", "cow")),
)
_CAPITALS = ("London", "Paris", "Madrid", "Rome", "Oslo", "Berlin")
_COUNTRIES = ("UK", "France", "Spain", "Italy", "Norway", "Germany")
WORD_LISTS = {
    "family": WordList(
        "family", _FAMILY, tuple(pair for _, words in _FAMILY for pair in (words[:2], words[2:]))
    ),
    "cities": WordList(
        "cities",
        ((later("capitals"), _CAPITALS), (later("countries"), _COUNTRIES)),
        tuple(zip(_CAPITALS, _COUNTRIES, strict=True)),
    ),
}
"""The talk's two lists. Example: `len(WORD_LISTS["family"].words) == 12`."""

SENTENCES = {
    later("English"): "The train arrives at the station at eight in the morning.",
    later("German"): "Der Zug kommt um acht Uhr morgens am Bahnhof an.",
    later("Spanish"): "El tren llega a la estación a las ocho de la mañana.",
    later("Russian"): "Поезд прибывает на вокзал в восемь часов утра.",
    later("Japanese"): "電車は朝八時に駅に着きます。",
}
"""One sentence in five languages."""

MICE = ("the cat chased the mouse", "the mouse chased the cat")
"""The talk's two sentences of the same words in another order."""

# Code points of scripts that put no spaces between words: Thai to Myanmar, Khmer, kana, Han.
_SPACELESS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF))


def count_words(text: str) -> int | None:
    """Count the words between spaces; None for a script that does not put spaces between words.

    >>> count_words("The capital of Spain is"), count_words("電車")
    (5, None)
    """
    if any(low <= ord(character) <= high for character in text for low, high in _SPACELESS):
        return None
    return len(text.split())


def word_list(words: str | PathLike[str] | Sequence[str]) -> WordList:
    """Return a bundled list by name, the words of a file, or the given words; raises BadInput, NotFound.

    Spaces, commas and line ends separate the words of a file; a line of exactly two words is also a pair.
    """
    if isinstance(words, str) and words in WORD_LISTS:
        return WORD_LISTS[words]
    if isinstance(words, (str, PathLike)):
        path = Path(words)
        lines = [line.replace(",", " ").split() for line in _read(path).splitlines()]
        pairs = tuple((line[0], line[1]) for line in lines if len(line) == 2)
        return _checked(path.stem, [word for line in lines for word in line], pairs, str(path))
    return _checked("words", list(words), (), "the list of words")


def _checked(name: str, words: list[str], pairs: tuple[Pair, ...], place: str) -> WordList:
    distinct = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    if len(distinct) < 3:
        raise BadInput(
            f"{place} has {len(distinct)} different words; a map needs at least 3: add some, or choose one"
            f" of the lists {', '.join(WORD_LISTS)}"
        )
    return WordList(name, ((later("words"), distinct),), pairs)


def _read(path: Path) -> str:
    if not path.is_file():
        lists = ", ".join(WORD_LISTS)
        raise NotFound(f"{path} is neither a file nor a list of words; the lists are {lists}")
    data = read_bytes(path)
    if len(data) > MOST_BYTES:
        raise BadInput(f"{path} is larger than {MOST_BYTES:,} bytes: a map shows a few hundred words")
    return decode(data, str(path))
