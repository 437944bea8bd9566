"""`pophood look architecture`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, looking


@looking(text=False)
def command(ask: Ask) -> int:
    """Draw the model from its configuration, with shapes and parameter counts.

    Example: pophood look architecture -m gpt2
    """
    from pophood import look

    return ask.show(look.architecture)
