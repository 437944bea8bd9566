"""Safe matching of the regular expressions for module names in PEFT's `rank_pattern` and `alpha_pattern`.

PEFT gives a module the value of the first pattern for which `re.match(rf"(.*\\.)?({pattern})$", name)`
matches. The patterns come from a stranger's file, and Python's `re` can backtrack for years on a pattern of a
few characters (`(a+)+b`). So a pattern with repetition is matched here by advancing a set of positions, which
never backtracks, under a limit on the total number of steps. A plain name is left to `re`, whose work is then
bounded by the lengths of pattern and name.

References, lookahead, lookbehind, flags and possessive repetition are refused by name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

MOST_CHARACTERS = 1_000  # of a pattern, and of a module's name
MOST_DEPTH = 20  # of groups inside groups
MOST_COUNT = 1_000  # in {least,most}
MOST_STEPS = 5_000_000  # for all matches with the patterns of one file; takes a few seconds
_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\[.-])+\$?", re.ASCII)
_COUNTS = re.compile(r"\{([0-9]*)(?:(,)([0-9]*))?\}", re.ASCII)
_CLASS_ESCAPES = "dDwWsS"


class PatternError(ValueError):
    """Raised for a pattern that is not a regular expression, or uses a feature that is not supported here."""


@dataclass(frozen=True, slots=True)
class _Character:
    """One character that `test` matches."""

    test: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class _Edge:
    """The beginning (^) or the end ($) of the name."""

    beginning: bool


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _Character | _Edge | _Sequence | _Choice | _Repeat


class ModulePatterns:
    """The patterns of one file, in order; PatternError for one that cannot be read.

    >>> ModulePatterns(["q_proj", r".*\\.layers\\.3\\..*proj$"]).first("model.layers.3.mlp.up_proj")
    '.*\\\\.layers\\\\.3\\\\..*proj$'
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._matchers = {pattern: _matcher(pattern) for pattern in patterns}
        self._steps = [MOST_STEPS]

    def first(self, name: str) -> str | None:
        """Return the first pattern that matches a module's name as PEFT matches it, or None.

        Raises PatternError if the patterns of the file take too many steps.
        """
        if len(name) > MOST_CHARACTERS:
            raise PatternError(f"a module's name has {len(name):,} characters, more than {MOST_CHARACTERS:,}")
        places = _Places(name, self._steps)
        for pattern, matcher in self._matchers.items():
            if isinstance(matcher, re.Pattern):
                matched = matcher.match(name) is not None
            else:
                matched = places.whole(matcher)
            if matched:
                return pattern
        return None


def _matcher(pattern: str) -> re.Pattern[str] | _Node:
    if len(pattern) > MOST_CHARACTERS:
        raise PatternError(f"it has {len(pattern):,} characters, more than {MOST_CHARACTERS:,}")
    if _PLAIN.fullmatch(pattern):
        return re.compile(rf"(.*\.)?({pattern})$")
    node = _Parser(pattern).parsed()
    _compiled(rf"(.*\.)?({pattern})$")  # PEFT refuses what Python's re refuses
    return node


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" may change its meaning
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"it is not a regular expression ({error})") from None


@dataclass
class _Parser:
    """Parses a pattern from left to right."""

    text: str
    at: int = 0
    depth: int = 0

    def parsed(self) -> _Node:
        node = self._choice()
        if self.at < len(self.text):
            raise PatternError("it closes a group that it does not open")
        return node

    def _choice(self) -> _Node:
        parts = [self._sequence()]
        while self._next("|"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self._repeated(self._one()))
        return _Sequence(tuple(parts))

    def _one(self) -> _Node:
        start, character = self.at, self.text[self.at]
        self.at += 1
        if character == "(":
            return self._group()
        if character == "^":
            return _Edge(beginning=True)
        if character == "$":
            return _Edge(beginning=False)
        if character == "\\":
            escaped = self.text[self.at : self.at + 1]
            if escaped.isalnum() and escaped not in _CLASS_ESCAPES:
                raise PatternError(f"it uses \\{escaped}")
            self.at += 1
        elif character == "[":
            self._skip_class()
        elif character in "*+?":
            raise PatternError(f"{character} has nothing before it to repeat")
        elif character == "{":
            return _Character(re.compile(r"\{"))  # a brace that is not a count stands for itself
        return _Character(_compiled(self.text[start : self.at]))

    def _group(self) -> _Node:
        if self._next("?"):
            named = re.compile(r"P<[A-Za-z_][A-Za-z_0-9]*>|:").match(self.text, self.at)
            if named is None:
                raise PatternError(f"it uses (?{self.text[self.at : self.at + 2]}")
            self.at = named.end()
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise PatternError(f"it has more than {MOST_DEPTH} nested groups")
        node = self._choice()
        self.depth -= 1
        if not self._next(")"):
            raise PatternError("it opens a group that it does not close")
        return node

    def _skip_class(self) -> None:
        """Skip "[...]"; a "]" at its beginning is part of the class."""
        self._next("^")
        self._next("]")
        while self.at < len(self.text) and self.text[self.at] != "]":
            self.at += 2 if self.text[self.at] == "\\" else 1
        if not self._next("]"):
            raise PatternError("it opens a class of characters that it does not close")

    def _repeated(self, node: _Node) -> _Node:
        counts = self._counts()
        if counts is None:
            return node
        self._next("?")  # lazy repetition matches the same names
        if self.text[self.at : self.at + 1] == "+":
            raise PatternError("it repeats possessively")
        if self.text[self.at : self.at + 1] in ("*", "?") or _COUNTS.match(self.text, self.at):
            raise PatternError("it repeats a repetition")
        return _Repeat(node, *counts)

    def _counts(self) -> tuple[int, int | None] | None:
        for character, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._next(character):
                return counts
        match = _COUNTS.match(self.text, self.at)
        if match is None or match[0] == "{}":
            return None
        self.at = match.end()
        if max(len(match[1]), len(match[3] or "")) > 9:
            raise PatternError(f"it counts to more than {MOST_COUNT:,}")
        least = int(match[1] or 0)
        most = least if match[2] is None else int(match[3]) if match[3] else None
        if max(least, most or 0) > MOST_COUNT:
            raise PatternError(f"it counts to more than {MOST_COUNT:,}")
        return least, most

    def _next(self, character: str) -> bool:
        """Skip a character if it comes next, and return whether it did."""
        if self.text[self.at : self.at + 1] != character:
            return False
        self.at += 1
        return True


@dataclass
class _Places:
    """Matches nodes against one name. Sets of positions 0..len(name) are the bits of an integer."""

    name: str
    steps: list[int]  # the number of steps left, shared by all matches of a file
    _hits: dict[re.Pattern[str], int] = field(default_factory=dict)

    def whole(self, node: _Node) -> bool:
        """Return whether the node leads from the beginning, or from behind a dot, to the end."""
        starts = 1
        for i, character in enumerate(self.name.partition("\n")[0]):  # PEFT's "." ends at a new line
            if character == ".":
                starts |= 2 << i
        return bool(self._lead(node, starts) & self._edge(beginning=False))

    def _lead(self, node: _Node, places: int) -> int:
        self.steps[0] -= 1
        if self.steps[0] < 0:
            raise PatternError("the patterns take too long")
        if isinstance(node, _Character):
            return (places & self._places(node.test)) << 1
        if isinstance(node, _Edge):
            return places & self._edge(node.beginning)
        if isinstance(node, _Sequence):
            for part in node.parts:
                if places:
                    places = self._lead(part, places)
            return places
        if isinstance(node, _Choice):
            reached = 0
            for part in node.parts:
                reached |= self._lead(part, places)
            return reached
        return self._repeat(node, places)

    def _repeat(self, node: _Repeat, places: int) -> int:
        for _ in range(node.least):
            before, places = places, self._lead(node.part, places)
            if places == before:
                break
        if node.most is None and isinstance(node.part, _Character):
            return _run(places, self._places(node.part.test))
        reached = new = places
        left = None if node.most is None else node.most - node.least
        while new and left != 0:
            new = self._lead(node.part, new) & ~reached
            reached |= new
            left = None if left is None else left - 1
        return reached

    def _places(self, test: re.Pattern[str]) -> int:
        """Return the positions whose character passes a test."""
        if test not in self._hits:
            self.steps[0] -= len(self.name)
            self._hits[test] = sum(1 << i for i, character in enumerate(self.name) if test.match(character))
        return self._hits[test]

    def _edge(self, beginning: bool) -> int:
        if beginning:
            return 1
        end = 1 << len(self.name)
        return end | end >> 1 if self.name.endswith("\n") else end


def _run(places: int, hits: int) -> int:
    """Return where `x*` leads if the characters at `hits` match x, in steps of 1, 2, 4... characters."""
    passable, width = hits << 1, 1
    while passable:
        places |= passable & (places << width)
        passable &= passable << width
        width *= 2
    return places
