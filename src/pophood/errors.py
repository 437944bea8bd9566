"""The errors that pophood raises on purpose, shown once by the command line, and helpers for their messages.

A message is one line that says what, got, wanted, and the next step. A class exists only where a caller would
act differently on it; the message says which file or field was wrong.
"""

from __future__ import annotations

import reprlib


class PophoodError(Exception):
    """The base class of all errors that pophood raises on purpose."""


class BadFile(PophoodError):
    """A model, tokenizer or data file that breaks its format or contradicts itself."""


class Unsupported(PophoodError):
    """A well-formed file or request that asks for something pophood does not compute."""


class BadInput(PophoodError):
    """A request with a wrong value: an unknown name, a number out of range, invalid text."""


class ContextOverflow(BadInput):
    """A text that is longer than the model's context window."""

    def __init__(
        self, got: int, limit: int, advice: str = "shorten the text, or choose --truncate", *, why: str = ""
    ) -> None:
        """`why` says what limits the model below the context that its files name (`config.Limit.why`)."""
        holds = f"{limit:,} are computed with this model, since {why}" if why else ""
        holds = holds or f"the context window holds {limit:,}"
        super().__init__(f"the text has {got:,} tokens; {holds}: {advice}")
        self.got = got
        self.limit = limit
        self.why = why


class NotFound(PophoodError):
    """A model or file that is not on this machine and may not, or could not, be fetched."""


class OutOfMemory(PophoodError):
    """A model that does not fit in memory, refused before loading with the sum of what it needs."""


class EngineError(PophoodError):
    """An error inside the engine: a NaN in the activations, or an impossible state."""


class QueueFull(PophoodError):
    """A request that would have to wait behind more requests than the scheduler keeps."""


class Cancelled(PophoodError):
    """A forward pass that the caller's cancel flag ended; the sequences are as they were before the call."""


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most 200 characters, without terminal control characters.

    >>> one_line(ValueError("no\\x1b[2J good\\nat all"))
    'no?[2J good'
    """
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return "".join(character if character.isprintable() else "?" for character in first)


def quoted(text: str, limit: int = 80) -> str:
    """Quote a name from a file as one line of harmless ASCII, without line breaks or terminal escapes.

    >>> quoted("a" + chr(27) + "[2J")
    "'a\\\\x1b[2J'"
    """
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def short(value: object) -> str:
    """Format a value for a message: one line, about 60 characters at most, control characters escaped."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 4
_SHORT.maxlevel = 2


def __getattr__(name: str) -> type[NotFound]:
    """Return `NotFound` under its old name `NotHere`, with a DeprecationWarning; it goes in 0.3."""
    if name != "NotHere":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    warnings.warn("pophood.errors.NotHere is now NotFound", DeprecationWarning, stacklevel=2)
    return NotFound
