"""`pophood look output`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at(
    "-k", "--k", "k", type=int, default=10, show_default=True, metavar="N", help="How many tokens are listed."
)
def command(ask: Ask, k: int) -> int:
    """Compute the logits and the softmax by hand.

    Example: pophood look output "The capital of Spain is"
    """
    from pophood import look

    return ask.show(lambda lm: look.output(lm, ask.text, k=k))
