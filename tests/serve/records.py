"""Records that tests of the server make by hand. (small: one of a kind so far)"""

from __future__ import annotations

from pophood.generate import Finish, Token


def token(number: int, text: str, *, sample: int = 0, finish: Finish | None = None) -> Token:
    """Return a token whose figures do not matter."""
    return Token(
        id=number,
        text=text,
        position=1,
        sample=sample,
        logit=0.0,
        probability=None,
        entropy=None,
        top=None,
        seconds=0.0,
        finish=finish,
        final_probability=1.0,
    )
