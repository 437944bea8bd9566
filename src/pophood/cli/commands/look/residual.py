"""`pophood look residual`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, looking


@looking()
def command(ask: Ask) -> int:
    """Show what attention and feed-forward add in every block.

    Example: pophood look residual "The capital of Spain is" --save residual.svg
    """
    from pophood import look

    return ask.show(lambda lm: look.residual(lm, ask.text))
