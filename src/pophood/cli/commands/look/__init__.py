"""`pophood look NAME`: one command per view, which prints or saves what `pophood.look` gives."""

from __future__ import annotations

import click

from pophood.cli.lazy import LateGroup

VIEWS = {
    "architecture": "Draw the model from its configuration, with shapes and parameter counts.",
    "parameters": "Show where the parameters are.",
    "scale": "Compare the model's size with the talk's six.",
    "tokens": "Show how the text is cut into tokens.",
    "embeddings": "Draw words by their rows of the token embedding matrix.",
    "positions": "Show how the model knows where a token stands.",
    "before": "Show what happens before the first block: token row + position row.",
    "hidden": "Follow the hidden states through the model.",
    "norm": "Show what a norm does to every token, in three steps.",
    "residual": "Show what attention and feed-forward add in every block.",
    "dropout": "Demonstrate dropout on the real outputs of attention.",
    "attention": "Show where each token looks, head by head.",
    "feedforward": "Show the strongest neurons for a token, and what they promote.",
    "output": "Compute the logits and the softmax by hand.",
    "next": "List the likeliest next tokens, and what sampling leaves of them.",
    "surprise": "Colour every token by how surprising it is to the model.",
    "lens": "Show the model's guess after every block.",
    "trace": "Write the arrays of a forward pass to a file, or list them.",
    "all": "Save every view of a text, with an index page.",
}


class Views(LateGroup):
    """The commands below `pophood look`."""

    verbs = VIEWS
    package = "pophood.cli.commands.look"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in VIEWS:
            raise click.UsageError(f"there is no view {args[0]!r}: there are {', '.join(VIEWS)}.", ctx=ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Views, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def command() -> None:
    """Look inside a model while it reads a text.

    Every view prints to the terminal, and saves pictures, pages and data with --save. The text defaults to
    the talk's prompt, "The capital of Spain is". Text that is piped to a view is its text; beside a TEXT or a
    --file it comes first, then a blank line. Numbers are computed at f32 unless --precision says otherwise.
    A view's own options: pophood look NAME --help; -q and -v say less and more.

    Example: pophood look attention "The capital of Spain is" --layer 4 --save attention.svg
    """
