"""Every shell line that a page prints runs as printed, all in order in one fresh folder.

The default model is a tiny GPT-2 that a fake hub serves under the name gpt2.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pophood.course import Course, Page
from pophood.course.shell import with_model
from tests import processes
from tests.hub.fake_hub import GPT2_WANTED, running_hub
from tests.tiny import tiny_folder

LONG = {"pophood tune notes.txt"}  # takes five minutes; it is run with --show and with --steps instead


def lines_of(page: Page) -> list[str]:
    """Return a page's commands as the player prints them: first its shell cells, then those in its text."""
    cells = [*page.lead, *(cell for section in page.sections.values() for cell in section)]
    inline = [
        command
        for cell in cells
        if cell.kind in ("prose", "differs", "notes", "hint")
        for command in re.findall(r"`(pophood \S+ [^`]+)`", cell.text)
    ]
    return [*page_commands(page), *inline]


def page_commands(page: Page) -> list[str]:
    return [line for cell in page.cells("sh") for line in with_model(cell.text, "").split("\n")]


def test_every_page_prints_a_line(course: Course) -> None:
    assert all(page_commands(page) for page in course.pages)


def test_every_shell_line_runs_as_printed_in_order(course: Course, tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "published", "gpt2", n_positions=256)
    program = tmp_path / "bin" / "pophood"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pophood "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    lines = [(page, line) for page in course.pages for line in lines_of(page) if line not in LONG]
    assert len(lines) > 40
    with running_hub() as hub:
        hub.add(
            "openai-community/gpt2",
            {path.name: path.read_bytes() for path in model.iterdir() if path.name in GPT2_WANTED},
        )
        environment = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "POPHOOD_HOME": str(tmp_path / "home"),
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith("POPHOOD_")} | environment
        for page, line in [(course.pages[5], "pophood pull gpt2"), *lines]:
            done = processes.run(
                ["sh", "-c", line],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
            if done.returncode:
                pytest.fail(f"{page.path}: {line!r} ended with {done.returncode}: {done.stderr[-600:]}")
