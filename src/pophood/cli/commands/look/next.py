"""`pophood look next`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at(
    "-k", "--k", "k", type=int, default=10, show_default=True, metavar="N", help="How many tokens are listed."
)
@at("--temperature", type=float, metavar="T", help="Show what this temperature makes of them.")
@at("--top-k", type=int, metavar="N", help="Show what the N likeliest leave.")
@at("--top-p", type=float, metavar="P", help="Show what a nucleus of this probability leaves.")
@at("--min-p", type=float, metavar="P", help="Show what is left above this share of the likeliest.")
def command(
    ask: Ask, k: int, temperature: float | None, top_k: int | None, top_p: float | None, min_p: float | None
) -> int:
    """List the likeliest next tokens, and what sampling leaves of them.

    Example: pophood look next "The capital of Spain is" -k 5 --top-p 0.9
    """
    from pophood import look

    return ask.show(
        lambda lm: look.next(
            lm, ask.text, k=k, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
        )
    )
