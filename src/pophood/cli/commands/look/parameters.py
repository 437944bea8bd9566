"""`pophood look parameters`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, looking


@looking(text=False)
def command(ask: Ask) -> int:
    """Show where the parameters are.

    Example: pophood look parameters --save parameters.html --open
    """
    from pophood import look

    return ask.show(look.parameters)
