"""`pophood use NAME`: set the default model, for commands that name none."""

from __future__ import annotations

import click

from pophood.cli.options.shared import json_option, other_option, verb
from pophood.cli.terminal.console import Console


@verb()
@click.argument("name", required=False)
@other_option("--none", "forget", is_flag=True, help="Forget the choice.")
@json_option
def command(console: Console, name: str | None, forget: bool, as_json: bool) -> None:
    """Set the default model, for commands that name none.

    Example: pophood use smollm2
    """
    from pophood import hub

    if forget and name is not None:
        raise click.UsageError("a NAME and --none contradict each other: give one")
    if forget or name is not None:
        hub.use(name)
    choice = hub.default_choice()
    if as_json:
        console.json({"model": choice.name if choice else None, "why": choice.why if choice else None})
    elif choice:
        console.out(f"{choice.name} is taken when no model is named ({choice.why})")
    else:
        console.out("No model is chosen and none is here: `pophood pull gpt2` fetches one")
