"""`pophood look dropout`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at("--p", type=float, default=0.1, show_default=True, metavar="P", help="The share that is dropped.")
@at("--seed", type=int, default=42, show_default=True, metavar="N", help="Of the mask.")
@at("--layer", type=int, default=0, show_default=True, metavar="N", help="The block, from 0; -1 is the last.")
def command(ask: Ask, p: float, seed: int, layer: int) -> int:
    """Demonstrate dropout on the real outputs of attention.

    Only training drops; running a model uses none.

    Example: pophood look dropout --p 0.1 --seed 42
    """
    from pophood import look

    return ask.show(lambda lm: look.dropout(lm, ask.text, p=p, seed=seed, layer=layer))
