"""`pophood look surprise`."""

from __future__ import annotations

from pathlib import Path

from pophood.cli.commands.look.asking import Ask, at, looking


@looking()
@at("--window", type=int, metavar="N", help="Tokens that the model reads at once (default: its context).")
def command(ask: Ask, window: int | None) -> int:
    """Colour every token by how surprising it is to the model.

    Example: pophood look surprise --file notes.txt --save surprise.html
    """
    from pophood import look

    text = Path(ask.file) if ask.file is not None else ask.text  # a file is read whole
    return ask.show(lambda lm: look.surprise(lm, text, window=window))
