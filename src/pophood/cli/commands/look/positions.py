"""`pophood look positions`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking(text=False)
@at(
    "--sentences",
    nargs=2,
    default=None,
    metavar="ONE OTHER",
    help="Two sentences of the same words (default: the talk's cat and mouse).",
)
def command(ask: Ask, sentences: tuple[str, str] | None) -> int:
    """Show how the model knows where a token stands.

    Example: pophood look positions --sentences "the dog bit the man" "the man bit the dog"
    """
    from pophood import look

    if sentences is None:
        return ask.show(look.positions)
    return ask.show(lambda lm: look.positions(lm, sentences=sentences))
