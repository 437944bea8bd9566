"""`pophood pull NAME`: download a model, completely or not at all."""

from __future__ import annotations

import click

from pophood.cli.options.shared import json_option, offline_option, option, verb
from pophood.cli.session import ask
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Transfer


@verb()
@click.argument("name")
@option("--revision", metavar="REV", section="Model", help="A branch, tag or commit (default: main).")
@option("--force", is_flag=True, section="Model", help="Fetch again what is already here.")
@option("-y", "--yes", is_flag=True, section="Other", help="Fetch without asking.")
@json_option
@offline_option
def command(
    console: Console,
    name: str,
    revision: str | None,
    force: bool,
    yes: bool,
    as_json: bool,
    offline: bool | None,
) -> None:
    """Fetch a model.

    NAME is gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a hub id such as owner/name, or one GGUF file of
    it: owner/name:file.gguf (of a split model all parts come). Size, target and free disk are said first; an
    interrupted pull goes on where it stopped, and what is here already, of another revision too, is checked
    and not fetched again; every file is checked by its hash. A login that `hf auth login` saved is sent to
    huggingface.co alone; -v says so.

    Example: pophood pull gpt2
    """
    from pophood import hub

    with Transfer(console, name) as progress:
        model = hub.pull(
            name,
            revision=revision,
            force=force,
            offline=offline,
            progress=progress,
            announce=console.say,
            detail=console.detail,
            confirm=None if yes else ask(console),
        )
    if as_json:
        console.json(
            {
                "name": model.name,
                "path": str(model.path),
                "source": model.source,
                "revision": model.revision,
                "licence": model.licence,
            }
        )
    else:
        console.out(f"{model.name} is here: {model.path}")
        console.detail(
            f"from {model.source}, revision {model.revision or 'none'}, {model.licence or 'no licence named'}"
        )
