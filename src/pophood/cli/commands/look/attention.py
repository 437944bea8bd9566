"""`pophood look attention`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at(
    "--layer",
    type=int,
    metavar="N",
    help="The block, from 0; -1 is the last (default: that of the most informative head).",
)
@at("--head", type=int, metavar="N", help="The head shown large (default: the most informative one).")
def command(ask: Ask, layer: int | None, head: int | None) -> int:
    """Show where each token looks, head by head.

    Example: pophood look attention "The capital of Spain is" --layer 4 --head 11
    """
    from pophood import look

    return ask.show(lambda lm: look.attention(lm, ask.text, layer=layer, head=head))
