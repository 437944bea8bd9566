"""`pophood list`: the models on this machine."""

from __future__ import annotations

import sys

from pophood.cli.options.shared import json_option, verb
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.tables import table
from pophood.system import size_text


@verb()
@json_option
def command(console: Console, as_json: bool) -> None:
    """List the models on this machine.

    Example: pophood list
    """
    from pophood import hub

    models = hub.list_models()
    choice = hub.default_choice()
    if as_json:
        console.json(
            [
                {
                    "name": model.name,
                    "path": str(model.path),
                    "bytes": model.size,
                    "format": model.kind,
                    "where": model.where,
                    "source": model.source,
                    "revision": model.revision,
                    "licence": model.licence,
                    "in_use": model.in_use,
                }
                for model in models
            ]
        )
    elif models:
        rows = [
            [
                "*" if model.in_use else "",
                model.name,
                size_text(model.size),
                model.kind,
                model.where,
                model.licence or "",
                str(model.path),
            ]
            for model in models
        ]
        headings = ["", "model", "size", "format", "where", "licence", "file"]
        console.out(table(headings, rows, sys.stdout, right=[2]))
        if choice:
            console.say(f"* is taken when no model is named ({choice.why})")
    else:
        console.say("No model is here yet: fetch one with `pophood pull gpt2` or `pophood pull smollm2`")
