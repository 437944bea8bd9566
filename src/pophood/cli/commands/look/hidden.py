"""`pophood look hidden`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, looking


@looking()
def command(ask: Ask) -> int:
    """Follow the hidden states through the model.

    Example: pophood look hidden "The capital of Spain is"
    """
    from pophood import look

    return ask.show(lambda lm: look.hidden(lm, ask.text))
