"""`pophood look embeddings`."""

from __future__ import annotations

from pophood.cli.commands.look.asking import Ask, at, looking


@looking(text=False)
@at(
    "--words",
    default="family",
    show_default=True,
    metavar="LIST",
    help="family or cities (the talk's words), or a file with one word a line.",
)
@at(
    "--spaced/--unspaced",
    default=False,
    help="With the space that a word has inside a text, where it is more often one token.",
)
@at("--neighbours", "--word", "word", metavar="WORD", help="The word whose nearest tokens are listed.")
@at("-k", "--k", "k", type=int, default=10, show_default=True, metavar="N", help="How many of them.")
def command(ask: Ask, words: str, spaced: bool, word: str | None, k: int) -> int:
    """Draw words by their rows of the token embedding matrix.

    Example: pophood look embeddings --words cities --spaced

    Example: pophood look embeddings --neighbours " Madrid"
    """
    from pophood import look

    return ask.show(lambda lm: look.embeddings(lm, words, spaced=spaced, word=word, k=k))
