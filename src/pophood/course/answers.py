"""Reads a guess and compares it leniently with the correct answer."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pophood.course.words import Words, listed, words_in
from pophood.errors import BadInput
from pophood.phrases import later

Answer = int | float | str | bool | tuple[str, ...]  # a tuple: each of these is correct, the first is shown
EXACT = 0.01  # relative error up to which a number is right: nobody guesses every digit of 124,439,808
NEAR = 0.25  # relative error up to which it is close
NUMBER = re.compile(r"([-+]?)([\d.,_ ]*\d)(e[-+]?\d+)?\s*((?:[^\d\s.,_+-]\D*)?)", re.ASCII)
DECIMAL = re.compile(r"\d*\.?\d+", re.ASCII)
Judged = Literal["right", "close", "wrong", "answer", "missing"]  # missing: no answer could be computed
JUDGED: tuple[Judged, ...] = (later("right"), later("close"), later("wrong"))  # the best first


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a guess; `given` is None without a guess. As a text it is in the language of `words`."""

    judged: Judged
    answer: str
    given: str | None
    words: Words = field(default_factory=words_in, repr=False, compare=False)

    def __str__(self) -> str:
        return self.words[self.judged].format(answer=self.answer, given=self.given)

    def _repr_html_(self) -> str:
        import html

        return f"<p><strong>{html.escape(str(self))}</strong></p>"


def check(given: object, right: object, words: Words | None = None) -> Verdict:
    """Compare a guess (None or "" for no guess) with the correct answer, in English or in the given words.

    Numbers may be written informally ("124 million", "50 %") and are right within 1 %; whole numbers below
    100 must be exact. Texts are compared regardless of case, accents and outer spaces.

    Raises BadInput for an unreadable guess.

    >>> str(check("5", 5)), str(check("100 million", 124_439_808)), str(check(" madrid", " Madrid"))
    ('Right: 5.', 'Close: 124,439,808 (you said 100,000,000).', 'Right: " Madrid".')
    """
    if not isinstance(right, (bool, int, float, str, tuple)):
        raise BadInput(f"an answer is a number, a text, or True or False; got {type(right).__name__}")
    words = words or words_in()
    shown = spell(right, words)
    if given is None or (isinstance(given, str) and not given.strip()):
        return Verdict("answer", shown, None, words)
    if isinstance(right, bool):
        guess = read_yes_no(given, words)
        return Verdict("right" if guess == right else "wrong", shown, spell(guess, words), words)
    if isinstance(right, (int, float)):
        judged = [(JUDGED.index(_near(one, right)), one) for one in read_numbers(given, words)]
        best, number = min(judged, key=lambda pair: pair[0])
        return Verdict(JUDGED[best], shown, spell(number, words), words)
    accepted = right if isinstance(right, tuple) else (right,)
    same = _folded(str(given)) in {_folded(text) for text in accepted}
    return Verdict("right" if same else "wrong", shown, spell(str(given), words), words)


def spell(value: Answer, words: Words | None = None) -> str:
    """Return an answer in the usual notation.

    >>> spell(1024), spell(0.37729), spell(True), spell((" Madrid", "Madrid"))
    ('1,024', '0.3773', 'yes', '" Madrid"')
    """
    if isinstance(value, bool):
        return (words or words_in())["yes" if value else "no"]
    if isinstance(value, (int, float)):
        if float(value).is_integer():
            return f"{int(value):,}"
        return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"
    return f'"{value[0] if isinstance(value, tuple) else value}"'


def readable(form: str, given: str, words: Words) -> bool:
    """Return True if a guess has the form of a question's label; an empty guess always does."""
    reader: Callable[[str, Words], object] | None = {"number": read_numbers, "yes-no": read_yes_no}.get(form)
    if given and reader is not None:
        try:
            reader(given, words)
        except BadInput:
            return False
    return True


def read_yes_no(given: object, words: Words | None = None) -> bool:
    """Read yes or no as a bool. Raises BadInput for anything else."""
    words = words or words_in()
    word = str(given).strip().lower()
    if word not in listed(f"{words['words_yes']}, {words['words_no']}"):
        raise BadInput(words["not_yes_no"].format(given=repr(str(given))))
    return word in listed(words["words_yes"])


def read_numbers(given: object, words: Words | None = None) -> tuple[float | int, ...]:
    """Read a number in informal notation. Raises BadInput for anything else.

    In a language whose decimal mark is the comma, "1.024" has two readings: as its readers write it, and as
    the outputs do, with a decimal point.

    >>> read_numbers("124,439,808"), read_numbers("124M"), read_numbers("2.5 %"), read_numbers(7)
    ((124439808,), (124000000,), (0.025,), (7,))
    >>> read_numbers("1.024", words_in("en") | {"decimal_mark": ","})
    (1024, 1.024)
    """
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return (given,)
    words = words or words_in()
    shown = repr(str(given))
    units = {name: float(value) for name, _, value in (u.rpartition(" ") for u in listed(words["units"]))}
    match = NUMBER.fullmatch(str(given).strip().lower())
    digits = () if match is None else _readings(re.sub("[_ ]", "", match[2]), words["decimal_mark"])
    if match is None or not digits or match[4] not in {"", *units}:
        raise BadInput(words["not_number"].format(given=shown))
    values = [float(f"{match[1]}{one}{match[3] or ''}") * units.get(match[4], 1) for one in digits]
    if not all(map(math.isfinite, values)):
        raise BadInput(words["not_finite"].format(given=shown))
    return tuple(int(value) if value.is_integer() else value for value in values)


def _readings(digits: str, decimal_mark: str) -> tuple[str, ...]:
    """Return every reading of "1.024" or "0,5" as Python writes it, that with groups of three first.

    >>> _readings("1.024", ","), _readings("0,5", ","), _readings("1.2.3", "."), _readings("1,024", ".")
    (('1024', '1.024'), ('0.5',), (), ('1024',))
    """
    if decimal_mark == ".":
        plain = digits.replace(",", "")
        return (plain,) if DECIMAL.fullmatch(plain) else ()
    found: list[str] = []
    for group, mark in ((".", ","), (",", ".")):
        grouped = rf"[1-9]\d{{0,2}}(\{group}\d{{3}})+(\{mark}\d+)?"
        if re.fullmatch(grouped, digits):
            found.insert(0, digits.replace(group, "").replace(mark, "."))
        elif group not in digits and DECIMAL.fullmatch(digits.replace(mark, ".")):
            found.append(digits.replace(mark, "."))
    return tuple(dict.fromkeys(found))


def _near(number: float, right: float) -> Literal["right", "close", "wrong"]:
    if number == right:
        return "right"
    away = abs(number - right) / max(abs(right), 1e-12)
    countable = float(right).is_integer() and abs(right) < 100
    if away <= EXACT and not countable:
        return "right"
    return "close" if away <= NEAR else "wrong"


def _folded(text: str) -> str:
    bare = unicodedata.normalize("NFKD", text.strip().strip("\"'«»“”").strip().casefold())
    return "".join(character for character in bare if not unicodedata.combining(character))
