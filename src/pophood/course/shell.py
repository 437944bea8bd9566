"""A page's shell lines for the model at hand. Text only."""

from __future__ import annotations

import shlex


def with_model(commands: str, model: str) -> str:
    """The lines with `-m MODEL`; one that names its model itself stays as it is.

    >>> with_model("pophood look next", "smollm2"), with_model("pophood show gpt2-xl", "smollm2")
    ('pophood look next -m smollm2', 'pophood show gpt2-xl')
    >>> with_model("seq 3 > notes.txt", "smollm2")
    'seq 3 > notes.txt'
    >>> with_model("pophood eval gpt2 notes.txt", "smollm2")  # takes its model as an argument
    'pophood eval smollm2 notes.txt'
    """
    if not model:
        return commands
    return "\n".join(_line(line, shlex.quote(model)) for line in commands.split("\n"))


def _line(line: str, model: str) -> str:
    if not line.startswith("pophood ") or line.startswith("pophood show "):
        return line
    if line.startswith("pophood eval "):
        return " ".join(["pophood eval", model, *line.split(" ")[3:]])
    return f"{line} {model}" if line == "pophood show" else f"{line} -m {model}"
