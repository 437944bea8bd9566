"""`pophood rm NAME`: delete a model from the store. It never deletes files elsewhere."""

from __future__ import annotations

import click

from pophood.cli.options.shared import json_option, other_option, verb
from pophood.cli.session import ask
from pophood.cli.terminal.console import Console


@verb()
@click.argument("name")
@other_option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def command(console: Console, name: str, yes: bool, as_json: bool) -> None:
    """Delete a model.

    Asks for confirmation at a terminal. Only models in pophood's own store are deleted, never those in shared
    folders or in the Hugging Face cache.

    Example: pophood rm gpt2-xl
    """
    from pophood import hub

    removed = hub.remove(name, announce=console.say, confirm=None if yes else ask(console))
    if as_json:
        console.json(
            {"name": name, "deleted": removed is not None, "path": str(removed.path) if removed else None}
        )
    else:
        console.out(f"{removed.name}: deleted" if removed else f"{name}: kept")
