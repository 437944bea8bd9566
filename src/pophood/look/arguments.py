"""How a view of a running model begins: the text read once, and what was asked for checked. No numbers.

Refusals are one line that lists what exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pophood.errors import BadInput
from pophood.look.view import Source

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.model.trace import Trace


def read(lm: LM, text: str, taps: Sequence[str]) -> tuple[Source, Trace]:
    """The text as the model reads it, and what these taps hold while it does.

    Raises what `LM.trace` raises: BadInput for an empty text, ContextOverflow, OutOfMemory.

        source, trace = read(lm, "The capital of Spain is", ["blocks.0.attn.pattern"])
    """
    source = Source.of(lm, text)
    return source, lm.trace(source.ids, taps)


def chosen(what: str, value: int, count: int, of: str) -> int:
    """The index that `value` names among `count`, counted from the end where negative; BadInput otherwise.

    >>> chosen("layer", -1, 12, "gpt2")
    11
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{what} {value!r} is no whole number: {of} has {what}s 0..{count - 1}")
    if not -count <= value < count:
        raise BadInput(f"there is no {what} {value}: {of} has {what}s 0..{count - 1}, and -1 is the last")
    return value % count


def chosen_token(value: int, source: Source) -> int:
    """The position that `value` names in the text; BadInput lists the text's tokens otherwise."""
    shown = [f"{i} {text!r}" for i, text in enumerate(source.tokens)]
    if len(shown) > 8:
        shown = [*shown[:6], "…", shown[-1]]
    return chosen("token", value, len(source.tokens), f"the text ({', '.join(shown)})")


def chosen_name(what: str, value: str, known: Sequence[str]) -> str:
    """`value` if it is known; BadInput lists what is.

    >>> chosen_name("norm", "ln_1", ("ln_1", "ln_2", "final"))
    'ln_1'
    """
    if value not in known:
        raise BadInput(f"no {what} is called {value!r}: there are {', '.join(known)}")
    return value


def spelled(source: Source, position: int) -> str:
    r"""A token for titles and sentences: its text in quotes without the spaces around it, escapes as escapes.

    >>> spelled(Source("m", "f32", "f32", "a b", (64, 275), ("a", " b")), 1)
    '"b"'
    """
    text = source.tokens[position]
    return f'"{repr(text.strip() or text)[1:-1]}"'
