"""The generator of docs/cli.md from the help texts: `python -m pophood.cli.docs docs/cli.md`.

A test fails when the page and the commands differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pophood.cli.app import LateGroup, pophood

WIDTH = 100

INTRODUCTION = """\
# The command line

<!-- Written by `make docs`; edit the commands, not this page. -->

Results go to stdout, messages about them to stderr. `-q` silences stderr except for errors, `-v` prints more.
Commands that print data take `--json`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failure: a bad file, a missing model, too little memory; or the reader of a pipe left |
| 2 | usage error: an unknown option or name, a value out of range, a text too long for the model |
| 130 | stopped by Ctrl-C; what was printed stays |

| environment variable | meaning |
|---|---|
| `POPHOOD_MODEL` | the default model |
| `POPHOOD_HOME` | the folder for models and settings |
| `POPHOOD_MODELS` | more folders with models, never written to; separated as in `PATH` |
| `POPHOOD_OFFLINE` | `1` forbids every connection, as `--offline` does |
| `POPHOOD_THREADS` | threads to compute with |
| `POPHOOD_ISA` | force an instruction set; `pophood doctor` lists those of this machine |
| `HF_ENDPOINT` | another model hub than huggingface.co |
| `HF_TOKEN` | your login for the hub (default: the one saved by `hf auth login`, for huggingface.co only) |
| `HTTPS_PROXY`, `NO_PROXY` | a proxy for downloads, and the hosts that need none |
| `NO_COLOR` | no colours |
"""


def page() -> str:
    """Return the whole page as text."""
    wide: dict[str, Any] = {"terminal_width": WIDTH, "max_content_width": WIDTH, "resilient_parsing": True}
    parent = pophood.make_context("pophood", [], **wide)
    sections = [INTRODUCTION, _section("pophood", pophood.get_help(parent))]
    sections += _commands(pophood, parent, "pophood", wide)
    return "\n".join(sections)


def _commands(group: LateGroup, parent: click.Context, path: str, wide: dict[str, Any]) -> Iterator[str]:
    for name in group.verbs:
        command = group.get_command(parent, name)
        assert command is not None
        context = command.make_context(name, [], parent=parent, **wide)
        yield _section(f"{path} {name}", command.get_help(context))
        if isinstance(command, LateGroup):
            yield from _commands(command, context, f"{path} {name}", wide)


def _section(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {title}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pophood.cli.docs docs/cli.md")
    Path(sys.argv[1]).write_bytes(page().encode("utf-8"))
