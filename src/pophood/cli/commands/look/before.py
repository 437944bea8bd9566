"""`pophood look before`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, looking


@looking()
def command(ask: Ask) -> int:
    """Show what happens before the first block: token row + position row.

    Example: pophood look before "The capital of Spain is"
    """
    from pophood import look

    return ask.show(lambda lm: look.before(lm, ask.text))
