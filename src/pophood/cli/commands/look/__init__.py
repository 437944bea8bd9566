"""`pophood look NAME`: one command per view, which prints or saves the view that `pophood.look` computes."""

from __future__ import annotations

import click

from pophood.cli.app import LateGroup
from pophood.cli.commands.look.views import VIEW_COMMANDS, view_command

VIEWS = {name: view.summary for name, view in VIEW_COMMANDS.items()} | {
    "trace": "Write the arrays of a forward pass to a file, or list them.",
    "all": "Save every view of a text, with an index page.",
}


class Views(LateGroup):
    """The commands below `pophood look`: those of the table, and the modules `trace` and `all`."""

    verbs = VIEWS
    package = "pophood.cli.commands.look"

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in VIEW_COMMANDS:
            return view_command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in VIEWS:
            raise click.UsageError(f"there is no view {args[0]!r}: there are {', '.join(VIEWS)}.", ctx=ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Views, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def look_command() -> None:
    """Look inside a model while it reads a text.

    Every view prints to the terminal, and saves pictures, pages and data with --save. The text defaults to
    the talk's prompt, "The capital of Spain is". Text piped to a view is its text; together with TEXT or
    --file it comes first, followed by a blank line. Numbers are computed at f32 unless --precision says
    otherwise. For a view's own options, see pophood look NAME --help; -q and -v print less and more.

    Example: pophood look attention "The capital of Spain is" --layer 4 --save attention.svg
    """
