"""Adapts the shell commands of a page to a given model (small: all players share it)."""

from __future__ import annotations

import shlex

# Commands that take the model options that change numbers (an adapter, a context).
COMPUTING = frozenset({"run", "chat", "look", "demo", "play", "talk"})


def with_model(commands: str, model: str, options: str = "") -> str:
    """Return the lines with `-m MODEL` added, except for those that name a model themselves.

    `options` are further options of that model, each after a space, for the commands that compute numbers.

    >>> with_model("pophood look next", "smollm2"), with_model("pophood show gpt2-xl", "smollm2")
    ('pophood look next -m smollm2', 'pophood show gpt2-xl')
    >>> with_model("seq 3 > notes.txt", "smollm2")
    'seq 3 > notes.txt'
    >>> with_model("pophood eval gpt2 notes.txt", "smollm2")  # takes its model as an argument
    'pophood eval smollm2 notes.txt'
    """
    lines = commands.split("\n")
    if model:
        lines = [_line(line, shlex.quote(model)) for line in lines]
    return "\n".join(line + options if _verb(line) in COMPUTING else line for line in lines)


def _verb(line: str) -> str:
    """Return the command of a line: `_verb("pophood look next") == "look"`."""
    words = line.split(" ")
    return words[1] if words[0] == "pophood" and len(words) > 1 else ""


def _line(line: str, model: str) -> str:
    if not line.startswith("pophood ") or line.startswith("pophood show "):
        return line
    if line.startswith("pophood eval "):
        return " ".join(["pophood eval", model, *line.split(" ")[3:]])
    return f"{line} {model}" if line == "pophood show" else f"{line} -m {model}"
