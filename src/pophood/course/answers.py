"""Reads a guess and compares it leniently with the correct answer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from pophood.errors import BadInput

Answer = int | float | str | bool | tuple[str, ...]  # a tuple: each of these is correct, the first is shown
EXACT = 0.01  # relative error up to which a number is right: nobody guesses every digit of 124,439,808
NEAR = 0.25  # relative error up to which it is close
UNITS = {"": 1, "%": 0.01, "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "billion": 1e9}
YES = {"yes", "y", "true", "1"}
NO = {"no", "n", "false", "0"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a guess; `given` is None without a guess."""

    judged: Literal["right", "close", "wrong", "answer", "missing"]  # missing: no answer could be computed
    answer: str
    given: str | None

    def __str__(self) -> str:
        return {
            "right": f"Right: {self.answer}.",
            "close": f"Close: {self.answer} (you said {self.given}).",
            "wrong": f"Not this time: {self.answer} (you said {self.given}).",
            "answer": f"The answer: {self.answer}.",
            "missing": "No answer: the cells of this page were not run.",
        }[self.judged]

    def _repr_html_(self) -> str:
        import html

        return f"<p><strong>{html.escape(str(self))}</strong></p>"


def check(given: object, right: object) -> Verdict:
    """Compare a guess (None or "" for no guess) with the correct answer.

    Numbers may be written informally ("124 million", "50 %") and are right within 1 %; whole numbers below
    100 must be exact. Texts are compared regardless of case and outer spaces.

    Raises BadInput for an unreadable guess.

    >>> str(check("5", 5)), str(check("100 million", 124_439_808)), str(check(" madrid", " Madrid"))
    ('Right: 5.', 'Close: 124,439,808 (you said 100,000,000).', 'Right: " Madrid".')
    """
    if not isinstance(right, (bool, int, float, str, tuple)):
        raise BadInput(f"an answer is a number, a text, or True or False; got {type(right).__name__}")
    shown = spell(right)
    if given is None or (isinstance(given, str) and not given.strip()):
        return Verdict("answer", shown, None)
    if isinstance(right, bool):
        guess = read_yes_no(given)
        return Verdict("right" if guess == right else "wrong", shown, spell(guess))
    if isinstance(right, (int, float)):
        number = read_number(given)
        return Verdict(_near(number, right), shown, spell(number))
    accepted = right if isinstance(right, tuple) else (right,)
    same = _folded(str(given)) in {_folded(text) for text in accepted}
    return Verdict("right" if same else "wrong", shown, spell(str(given)))


def spell(value: Answer) -> str:
    """Return an answer in the usual notation.

    >>> spell(1024), spell(0.37729), spell(True), spell((" Madrid", "Madrid"))
    ('1,024', '0.3773', 'yes', '" Madrid"')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if float(value).is_integer():
            return f"{int(value):,}"
        return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"
    return f'"{value[0] if isinstance(value, tuple) else value}"'


def read_yes_no(given: object) -> bool:
    """Read yes or no as a bool. Raises BadInput for anything else."""
    word = str(given).strip().lower()
    if word not in YES | NO:
        raise BadInput(f"got {str(given)!r}, wanted yes or no")
    return word in YES


def read_number(given: object) -> float | int:
    """Read a number in informal notation. Raises BadInput for anything else.

    >>> read_number("124,439,808"), read_number("124M"), read_number("2.5 %"), read_number(7)
    (124439808, 124000000, 0.025, 7)
    """
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return given
    match = re.fullmatch(
        r"([-+]?[\d,_ ]*\.?\d+(?:e[-+]?\d+)?)\s*(%|[a-z]*)", str(given).strip().lower(), re.ASCII
    )
    if match is None or match[2] not in UNITS:
        raise BadInput(f"got {str(given)!r}, wanted a number such as 12, 0.5 or 124 million")
    value = float(re.sub(r"[,_ ]", "", match[1])) * UNITS[match[2]]
    if not math.isfinite(value):
        raise BadInput(f"got {str(given)!r}, wanted a finite number")
    return int(value) if value.is_integer() else value


def _near(number: float, right: float) -> Literal["right", "close", "wrong"]:
    if number == right:
        return "right"
    away = abs(number - right) / max(abs(right), 1e-12)
    countable = float(right).is_integer() and abs(right) < 100
    if away <= EXACT and not countable:
        return "right"
    return "close" if away <= NEAR else "wrong"


def _folded(text: str) -> str:
    return text.strip().strip("\"'").strip().casefold()
