"""`pophood look tokens`."""

from __future__ import annotations

import click

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at("--compare", multiple=True, metavar="TEXT", help="Another text to compare with; may be repeated.")
@at("--languages", is_flag=True, help="Compare the same sentence in five languages instead.")
def command(ask: Ask, compare: tuple[str, ...], languages: bool) -> int:
    """Show how the text is cut into tokens.

    Example: pophood look tokens "color" --compare "colour"

    Example: pophood look tokens --languages
    """
    from pophood import look

    if languages and (compare or ask.given):
        other = "--compare" if compare else "a text"
        raise click.UsageError(f"--languages compares one sentence of its own; it takes no {other}")
    return ask.show(
        lambda lm: look.tokens(lm, [ask.text, *compare] if compare else ask.text, languages=languages)
    )
