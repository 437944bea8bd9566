"""`pophood rm NAME`: delete a model from the store. It never deletes files elsewhere."""

from __future__ import annotations

import click

from pophood.cli.options.shared import json_option, option, verb
from pophood.cli.session import ask
from pophood.cli.terminal.console import Console


@verb()
@click.argument("name")
@option("-y", "--yes", is_flag=True, section="Other", help="Delete without asking.")
@json_option
def command(console: Console, name: str, yes: bool, as_json: bool) -> None:
    """Delete a model.

    Asks first at a terminal. What others own (shared folders, the Hugging Face cache) is refused.

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
