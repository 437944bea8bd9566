"""`pophood look lens`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at(
    "--token",
    metavar="TOKEN",
    help='The token that is followed, as in " Madrid" (default: the final choice).',
)
@at(
    "--position",
    type=int,
    default=-1,
    show_default=True,
    metavar="N",
    help="After which token the model guesses; -1 is the last.",
)
@at("--most", type=int, metavar="N", help="How many positions the map shows, at most.")
def command(ask: Ask, token: str | None, position: int, most: int | None) -> int:
    """Show the model's guess after every block.

    Example: pophood look lens "The capital of Spain is" --token " Madrid"
    """
    from pophood import look

    limit = {} if most is None else {"most": most}
    return ask.show(lambda lm: look.lens(lm, ask.text, token=token, position=position, **limit))
