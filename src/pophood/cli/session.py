"""Opening the model that a command works with, and saying which one it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pophood.cli.console import Console
from pophood.cli.options import ModelChoice
from pophood.cli.progress import Transfer, Waiting

if TYPE_CHECKING:
    from pophood.lm import LM


def ask(console: Console) -> Callable[[str], bool] | None:
    """A function that asks the person at the terminal, or None where there is nobody to ask."""
    if not console.interactive():
        return None

    def question(words: str) -> bool:
        sys.stderr.write(f"{words} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return question


def open_model(console: Console, choice: ModelChoice, *, chat: bool = False) -> LM:
    """Find, fetch if need be (said aloud), load, and name the model, its precision and its file on stderr."""
    from pophood import hub, lm

    with Transfer(console, choice.name or "model") as progress:
        found = hub.locate(
            choice.name,
            chat=chat,
            offline=choice.offline,
            announce=console.say,
            confirm=ask(console),
            progress=progress,
        )
    with Waiting(console, f"loading {found.name}") as waiting:
        model = lm.load(
            found,
            precision=choice.precision,
            threads=choice.threads,
            context=choice.context,
            progress=waiting,
        )
    console.say(f"{found.name} at {model.engine.precision}, {found.path}")
    console.detail(
        f"{model.engine.isa} kernels, {model.engine.threads} threads, context {model.engine.context:,}, "
        f"weights {hub.size_text(model.engine.weight_bytes)}"
    )
    return model
