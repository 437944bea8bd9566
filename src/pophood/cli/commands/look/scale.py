"""`pophood look scale`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking(text=False)
@at(
    "--add",
    multiple=True,
    metavar="NAME,PARAMS,YEAR",
    help="One more model, as in Mine,1.5B,2025; may be repeated.",
)
def command(ask: Ask, add: tuple[str, ...]) -> int:
    """Compare the model's size with the talk's six.

    Which of the six figures are published and which are estimates is marked.

    Example: pophood look scale --add Mine,1.5B,2025
    """
    from pophood import look

    return ask.show(lambda lm: look.scale(lm, add=add))
