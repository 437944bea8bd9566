"""One pass through the model for a view: the text checked first, the last row of logits, a few taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput, ContextOverflow
from pophood.look.view import Source

if TYPE_CHECKING:
    from pophood.model.lm import LM


@dataclass(frozen=True, slots=True, eq=False)
class LastRow:
    """What a text leads to: `logits` [V] after its last token, and the taps that were asked for."""

    logits: NDArray[np.float32]
    taps: dict[str, NDArray[np.float32]]


def source_of(lm: LM, text: str, *, whole: bool = True) -> Source:
    """The text as the model reads it; BadInput if there is none, ContextOverflow if `whole` and too long."""
    source = Source.of(lm, text)
    if not source.ids:
        raise BadInput("the text is empty: give at least one token")
    if whole and len(source.ids) > lm.engine.context:
        why = lm.config.limited_by(lm.engine.context)
        raise ContextOverflow(len(source.ids), lm.engine.context, "shorten the text", why=why)
    return source


def last_row(lm: LM, source: Source, taps: Sequence[str] = ()) -> LastRow:
    """Run the text through the model once."""
    sequence = lm.engine.new_sequence()
    try:
        done = lm.engine.forward([(sequence, source.ids)], taps=taps)
    finally:
        lm.engine.drop(sequence)
    assert done.output is not None
    return LastRow(done.output[0], done.taps)


def ending(text: str, most: int = 48) -> str:
    """The text for a title: in quotes, on one line, its end if it is long.

    >>> ending("The capital of Spain is"), ending("x" * 60, most=5)
    ('"The capital of Spain is"', '"…xxxxx"')
    """
    line = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f'"{line}"' if len(line) <= most else f'"…{line[-most:]}"'
