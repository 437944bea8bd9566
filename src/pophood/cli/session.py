"""Opening the model that a command uses, and printing its name, precision and file."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pophood.cli.options.shared import ModelChoice
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Transfer, Waiting

if TYPE_CHECKING:
    from pophood.hub import Located
    from pophood.model.lm import LM


def ask(console: Console) -> Callable[[str], bool] | None:
    """Return a function that asks the user a yes-no question, or None if there is no terminal."""
    if not console.interactive():
        return None

    def question(words: str) -> bool:
        sys.stderr.write(f"{words} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return question


def locate(console: Console, name: str | None, *, chat: bool = False, offline: bool | None = None) -> Located:
    """Find a model, and download it if necessary, with a bar and a question before the download."""
    from pophood import hub

    with Transfer(console, name or "model") as progress:
        return hub.locate(
            name,
            chat=chat,
            offline=offline,
            announce=console.say,
            detail=console.detail,
            confirm=ask(console),
            progress=progress,
        )


def open_model(console: Console, choice: ModelChoice, *, chat: bool = False, weights: bool = True) -> LM:
    """Find, download if necessary, and load the model; print its name, precision and file on stderr.

    Without `weights` it only tells how it would be computed.
    """
    from pophood.model import lm
    from pophood.model.identity import load_details, load_remarks
    from pophood.phrases import phrase

    located = locate(console, choice.name or _base_of(choice), chat=chat, offline=choice.offline)
    with Waiting(console, phrase("loading {name}", name=located.name)) as waiting:
        model = lm.load(
            located,
            precision=choice.precision,
            kv=choice.kv,
            threads=choice.threads,
            context=choice.context,
            adapters=choice.adapters,
            announce=console.say,
            progress=waiting,
            weights=weights,
        )
    for words in load_remarks(model, choice.precision):
        console.say(words)
    for words in load_details(model):
        console.detail(words)
    return model


def _base_of(choice: ModelChoice) -> str | None:
    """Return the name of the base model in the first adapter's files, if that model is on this machine."""
    from pophood import hub
    from pophood.adapters.peft import CONFIG, base_of
    from pophood.errors import PophoodError

    for place, _ in choice.adapters[:1]:
        if not (Path(place) / CONFIG).is_file():
            return None  # a .gguf file, or missing: an error comes when it is opened
        base = base_of(place)
        try:
            return hub.locate(base, offline=True).name if base else None
        except PophoodError:
            return None
    return None


def this_command() -> str:
    """Return the shell command for this installation: `pophood`, a path to it, or `python -m pophood`."""
    script = Path(sys.executable).parent / ("pophood.exe" if sys.platform == "win32" else "pophood")
    on_path = shutil.which("pophood")
    if on_path is not None and Path(on_path).parent == script.parent:
        return "pophood"
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m pophood"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))
