"""`pophood look feedforward`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at("--layer", type=int, default=0, show_default=True, metavar="N", help="The block, from 0; -1 is the last.")
@at(
    "--token",
    type=int,
    default=-1,
    show_default=True,
    metavar="N",
    help="The token's position, from 0; -1 is the last.",
)
def command(ask: Ask, layer: int, token: int) -> int:
    """Show the strongest neurons for a token, and what they promote.

    Example: pophood look feedforward --layer 11 --token -1
    """
    from pophood import look

    return ask.show(lambda lm: look.feedforward(lm, ask.text, layer=layer, token=token))
