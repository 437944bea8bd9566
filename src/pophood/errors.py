"""Everything that pophood raises on purpose: raised deep, shown once at the edge (`cli/`).

A message is one line that says what, got, wanted, and the next step. A class exists only where a
caller would act differently on it; which file or field was wrong is in the words.
"""

from __future__ import annotations


class PophoodError(Exception):
    """The parent of every error that pophood raises on purpose."""


class BadFile(PophoodError):
    """A model, tokenizer or data file that breaks its format, or lies about itself."""


class Unsupported(PophoodError):
    """A well-formed file or request that asks for what pophood does not compute."""


class BadInput(PophoodError):
    """A request with a wrong value: an unknown name, a number out of range, invalid text."""


class ContextOverflow(BadInput):
    """A text that is longer than the model's context window."""

    def __init__(
        self, got: int, limit: int, advice: str = "shorten the text, or choose --truncate", *, why: str = ""
    ) -> None:
        """`why`: what keeps the limit below the context that the model's files name (`config.Limit.why`)."""
        holds = f"{limit:,} are computed with this model, since {why}" if why else ""
        holds = holds or f"the context window holds {limit:,}"
        super().__init__(f"the text has {got:,} tokens; {holds}: {advice}")
        self.got = got
        self.limit = limit
        self.why = why


class NotHere(PophoodError):
    """A model or file that is not on this machine and may not, or could not, be fetched."""


class OutOfMemory(PophoodError):
    """A model that does not fit in memory: refused with the sum, before loading."""


class EngineError(PophoodError):
    """The engine stopped on its own account: a NaN in the activations, an impossible state."""


class Cancelled(PophoodError):
    """The caller's cancel flag ended a forward pass; the sequences are as before the call."""
