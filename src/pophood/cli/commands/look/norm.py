"""`pophood look norm`."""

from __future__ import annotations

import click

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at("--layer", type=int, metavar="N", help="The block, from 0 (the default); -1 is the last.")
@at(
    "--which",
    default="ln_1",
    show_default=True,
    metavar="NORM",
    help="ln_1 (before attention), ln_2 (before feed-forward) or final.",
)
def command(ask: Ask, layer: int | None, which: str) -> int:
    """Show what a norm does to every token, in three steps.

    Before, normalised (mean 0, variance 1), and after gain and shift.

    Example: pophood look norm --layer 3 --which ln_2
    """
    from pophood import look

    if which == "final" and layer is not None:
        raise click.UsageError("--which final is the norm after the last block; it takes no --layer")
    layer = layer or 0
    return ask.show(lambda lm: look.norm(lm, ask.text, layer=layer, which=which))
