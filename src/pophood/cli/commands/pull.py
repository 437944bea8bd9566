"""`pophood pull NAME`: download a model, completely or not at all."""

from __future__ import annotations

import click

from pophood.cli.options.shared import json_option, model_option, offline_option, other_option, verb
from pophood.cli.session import ask
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Transfer


@verb()
@click.argument("name")
@model_option("--revision", metavar="REV", help="Branch, tag or commit (default: main).")
@model_option("--force", is_flag=True, help="Download again, even if the model is already here.")
@other_option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
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
    """Download a model.

    NAME is gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a hub id such as owner/name, or one of its GGUF
    files: owner/name:file.gguf (with all parts, if the file is split). The size, the destination and the free
    disk space are shown first. An interrupted pull resumes where it stopped, and files that are already here,
    even from another revision, are not downloaded again. Every file is verified by its hash. A login saved by
    `hf auth login` is sent to huggingface.co only; -v says so.

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
