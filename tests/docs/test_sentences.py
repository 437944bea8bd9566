"""Commands that a page names within a sentence exist, and have the options that they are given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from pophood.cli.app import pophood
from tests.conftest import ROOT
from tests.contracts.sources import tracked_files
from tests.contracts.test_pictures import parse
from tests.docs.blocks import FENCE, NO_PAGES

HISTORY = ("CHANGELOG.md", "docs/log.md")  # they name what there was
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in tracked_files()
    if path.suffix == ".md" and path.relative_to(ROOT).parts[0] not in NO_PAGES
)


def unknown(command: str) -> str | None:
    """Return what the program says of a command or an option that it does not have, else None."""
    words = shlex.split(command)
    if len(words) == 2:  # perhaps a group of commands, which wants one of them
        there = pophood.list_commands(click.Context(pophood))
        return None if words[1] in there or words[1].startswith("-") else f"No such command {words[1]!r}"
    try:
        parse(words)
    except click.exceptions.Exit:
        return None
    except click.ClickException as error:  # a missing file, or a name that stands for one, is none of it
        said = error.format_message()
        return said if said.startswith("No such") else None
    return None


def commands(text: str) -> list[str]:
    """Return the commands in a page's sentences, placeholders included."""
    found = re.findall(r"`pophood ([^`]+)`", FENCE.sub("", text))
    lines = ["pophood " + " ".join(command.split()) for command in found]
    return [line for line in lines if "..." not in line and "/" not in line.split()[1]]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_commands_in_sentences_have_their_options(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands((ROOT / page).read_text(encoding="utf-8"))
    assert [(command, said) for command in found if (said := unknown(command))] == []


def test_a_wrong_option_is_found() -> None:
    assert commands("Type `pophood export\nM -o X`.\n\n```sh\npophood ruin\n```\n") == [
        "pophood export M -o X"
    ]
    assert "-o" in (unknown("pophood export M -o X") or "")
    assert unknown("pophood ruin") and unknown("pophood look lens --most 3") is None
