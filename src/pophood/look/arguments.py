"""The first steps of a view: check its arguments, read the text, run the model once.

An error is one line that lists the valid values.
"""

from __future__ import annotations

from collections.abc import Sequence

from pophood.errors import BadInput, ContextOverflow
from pophood.look.source import ViewSource
from pophood.model.lm import LM, Text
from pophood.model.trace import Trace
from pophood.sampling.softmax import Floats


def trace_text(lm: LM, text: Text, taps: Sequence[str]) -> tuple[ViewSource, Trace]:
    """Run the model over `text` and return its source and the arrays of these taps.

    Raises what `LM.trace` raises: BadInput for an empty text, ContextOverflow, OutOfMemory.

        source, trace = trace_text(lm, "The capital of Spain is", ["blocks.0.attn.pattern"])
    """
    source = ViewSource.of(lm, text)
    return source, lm.trace(source.ids, taps)


def source_of(lm: LM, text: Text, *, whole: bool = True) -> ViewSource:
    """Return the source of a text; BadInput if it is empty, ContextOverflow if `whole` and it is too long."""
    source = ViewSource.of(lm, text)
    if not source.ids:
        raise BadInput("the text is empty: give at least one token")
    if whole and len(source.ids) > lm.engine.context:
        why = lm.config.limited_by(lm.engine.context)
        raise ContextOverflow(len(source.ids), lm.engine.context, "shorten the text", why=why)
    return source


def last_row(lm: LM, source: ViewSource, taps: Sequence[str] = ()) -> tuple[Floats, dict[str, Floats]]:
    """Run the text through the model once; return the logits [V] after its last token, and the taps."""
    with lm.engine.sequence() as sequence:
        forward = lm.engine.forward([(sequence, source.ids)], taps=taps)
    return forward.output[0], forward.taps


def checked_index(what: str, value: int, count: int, of: str) -> int:
    """Return `value` as an index below `count`; negative values count from the end. BadInput otherwise.

    >>> checked_index("layer", -1, 12, "gpt2")
    11
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{what} must be a whole number, not {value!r}: {of} has {what}s 0..{count - 1}")
    if not -count <= value < count:
        raise BadInput(f"there is no {what} {value}: {of} has {what}s 0..{count - 1}, and -1 is the last")
    return value % count


def checked_position(value: int, source: ViewSource) -> int:
    """Return `value` as the position of a token; BadInput, with a list of the tokens, if there is none."""
    tokens = [f"{i} {text!r}" for i, text in enumerate(source.tokens)]
    if len(tokens) > 8:
        tokens = [*tokens[:6], "…", tokens[-1]]
    return checked_index("token", value, len(source.tokens), f"the text ({', '.join(tokens)})")


def checked_name(what: str, value: str, known: Sequence[str]) -> str:
    """Return `value` if it is one of the `known` names; BadInput lists these otherwise.

    >>> checked_name("norm", "ln_1", ("ln_1", "ln_2", "final"))
    'ln_1'
    """
    if value not in known:
        raise BadInput(f"there is no {what} {value!r}; the {what}s are {', '.join(known)}")
    return value
