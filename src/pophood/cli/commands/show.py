"""`pophood show NAME`: the facts and figures of a model, in the talk's wording where there is one."""

from __future__ import annotations

import sys

import click

from pophood.cli.options.shared import json_option, verb
from pophood.cli.terminal.console import VERBOSE, Console
from pophood.errors import NotFound


@verb()
@click.argument("name", required=False)
@json_option
def command(console: Console, name: str | None, as_json: bool) -> None:
    """Show the facts and figures of a model.

    Parameters, blocks, heads, sizes, the precision of each part, memory, licence, source, stop tokens,
    suggested sampling values. gpt2 (every size) and smollm2 are known without their weights. -v also looks
    for NaN and infinity in every tensor. Fetches nothing.

    Example: pophood show gpt2
    """
    from pophood import hub
    from pophood.cli.screens import model_card as portrait

    choice = hub.default_choice()
    wanted = name or (choice.name if choice else None)
    if wanted is None:
        raise click.UsageError("no model is chosen and none is here: name one, as in `pophood show gpt2`")
    known = hub.catalogue.get(wanted)
    try:
        found = hub.locate(wanted, offline=True, announce=console.say)
    except NotFound:
        if known is None:
            raise NotFound(f"{wanted}: not on this machine: `pophood pull {wanted}` fetches it") from None
        facts = portrait.from_catalogue(known)
        console.say(f"{wanted}: not on this machine; `pophood pull {wanted}` fetches it")
    else:
        from pophood.model.bundle import open_bundle

        bundle = open_bundle(found.path)
        facts = portrait.from_files(found, bundle, known)
        if console.verbosity >= VERBOSE:
            facts["nonfinite"] = portrait.nonfinite(bundle)
    if as_json:
        console.json(facts)
    else:
        console.out(portrait.text(facts, sys.stdout))
