"""Which run cells of a page stand on which slide.

Two slides are the rule: the code stands beside the question, and what it gave beside the answer. With more
slides (`slides: 4` in the front matter), the run cells stand between the two, code beside output.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from pophood.course.deck.parts import Part
from pophood.course.pages import SLIDES


@dataclass(slots=True)
class Group:
    """A run cell: the text before it, its code, what it gave, and the text after the last one."""

    before: list[Part]
    code: Part
    shown: list[Part]
    after: list[Part] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts beside the question and beside the answer, and the groups of each slide between the two."""

    beside_question: list[Part]
    beside_answer: list[Part]
    apart: list[list[Group]]


def arranged(slides: int, groups: Sequence[Group]) -> Plan:
    """Return where the run cells of a page with so many slides stand."""
    if slides == SLIDES:
        return Plan(*columns(groups), [])
    between = slides - SLIDES
    bounds = [len(groups) * i // between for i in range(between + 1)]
    apart = [list(groups[a:b]) for a, b in itertools.pairwise(bounds)]
    return Plan([], [], apart)


def columns(groups: Sequence[Group]) -> tuple[list[Part], list[Part]]:
    """Return what is said and what is shown of the groups on one slide."""
    said = [part for group in groups for part in (*group.before, group.code, *group.after)]
    return said, [part for group in groups for part in group.shown]
