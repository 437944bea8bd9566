"""What to do next with the result of a run: command lines that work as they stand, where it was started."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from pophood.train.data import DataOptions
from pophood.train.defaults import for_model
from pophood.train.run.setup import RunSetup
from pophood.train.settings import TrainSettings

LONGEST = 60  # characters of a prompt in a command


@dataclass(frozen=True, slots=True)
class Command:
    """A command line as words, the first of which is the program, and its purpose."""

    purpose: str
    words: tuple[str, ...]

    def line(self, program: str = "pophood") -> str:
        """The command for a shell; `program`: pophood as it is called there.

        >>> Command("Go on with a text", ("pophood", "run", "Dear diary,", "--adapter", "notes-lora")).line()
        "pophood run 'Dear diary,' --adapter notes-lora"
        """
        first, *rest = self.words
        return " ".join([program if first == "pophood" else first, *map(shlex.quote, rest)])


def next_commands(setup: RunSetup, reason: str) -> tuple[Command, ...]:
    """Commands for the result of a run that ended for `reason`: use it, measure it, write it, go on."""
    place = path_word(setup.out)
    adapter = setup.settings.method == "lora"
    use = ("--adapter", scaled(place)) if adapter else ("-m", place)
    chat = setup.template is not None and setup.data.report.completions_only
    if chat:
        first = Command("Ask it something", ("pophood", "chat", "Hello!", *use))
    else:
        first = Command("Continue a text with it", _run(setup, use))
    measured = [path_word(path) for path in setup.options.validation_paths or setup.paths]
    model = (path_word(setup.lm.name), *measured, *use) if adapter else (place, *measured)
    return (
        first,
        Command(
            "Measure its loss and perplexity on a text",
            ("pophood", "eval", *model, *_reading(setup.options)),
        ),
        Command(
            "Export it as GGUF, for llama.cpp and others",
            ("pophood", "export", place, "--to", f"{place}.gguf"),
        ),
        *_more(setup, reason, place),
    )


def _run(setup: RunSetup, use: tuple[str, ...]) -> tuple[str, ...]:
    text = prompt_word(setup.prompts[0].text) if setup.prompts else "Once upon a time"
    return ("pophood", "run", *use, "--", text) if text.startswith("-") else ("pophood", "run", text, *use)


def _more(setup: RunSetup, reason: str, place: str) -> list[Command]:
    """Go on with a run that has a checkpoint; one that is complete is made anew with more minutes."""
    minutes, data = setup.settings.minutes, [path_word(path) for path in setup.paths]
    began = ["--from-scratch", setup.new_model.size] if setup.new_model else ["-m", path_word(setup.lm.name)]
    if reason in ("stopped", "clock"):
        shard = ["--shard"] if setup.shard else []
        more = ["--minutes", f"{minutes:g}"] if minutes is not None else []
        purpose = "Go on with the run"
        if minutes is not None:
            purpose = f"Go on with the run for {minutes:g} more {'minute' if minutes == 1 else 'minutes'}"
        words = [*_start(setup), "tune", *data, *began, "-o", place, "--resume", *more, *shard]
        return [Command(purpose, tuple(words))]
    if reason != "steps" or minutes is None or not _usual(setup):
        return []
    words = ["pophood", "tune", *data, *began, "--minutes", f"{2 * minutes:g}", "-o", f"{place}-longer"]
    return [Command("Tune again for twice as long", tuple(words))]


def _usual(setup: RunSetup) -> bool:
    """Whether a run had the settings that it has where none are named, so that a short command repeats it."""
    settings, options = setup.settings, setup.options
    if setup.new_model is not None or not setup.group.alone:
        return False
    usual = TrainSettings(method=settings.method, minutes=settings.minutes, patience=settings.patience)
    same_data = DataOptions(length=options.length, seed=options.seed, cache=options.cache) == options
    return same_data and settings == for_model(usual, setup.lm.config)


def _start(setup: RunSetup) -> list[str]:
    """The beginning of a command that starts all processes of a run: one, or one on each machine."""
    group = setup.group
    if group.alone:
        return ["pophood"]
    nodes = [] if group.size == group.local_size else ["--nnodes", "...", "--rdzv-endpoint", "..."]
    return ["torchrun", "--nproc-per-node", str(group.local_size), *nodes, "-m", "pophood"]


def _reading(options: DataOptions) -> list[str]:
    """How the data was read, as options of `pophood eval`."""
    words = [] if options.format == "auto" else ["--format", options.format]
    if options.columns:
        words += ["--columns", ",".join(f"{ours}={theirs}" for ours, theirs in options.columns.items())]
    if options.completions_only is not None:
        words.append("--completions-only" if options.completions_only else "--everything")
    return words


def path_word(path: Path | str) -> str:
    """A path that no command takes for an option.

    >>> path_word(Path("-notes.txt")), path_word("notes.txt")
    ('./-notes.txt', 'notes.txt')
    """
    return f"./{path}" if str(path).startswith("-") else str(path)


def scaled(place: str) -> str:
    """An adapter's folder as `--adapter` takes it: one with a colon gets its scale, which is 1.

    >>> scaled("notes-lora"), scaled("notes:2")
    ('notes-lora', 'notes:2:1')
    """
    return f"{place}:1" if ":" in place else place


def prompt_word(text: str) -> str:
    r"""The end of a prompt, from the beginning of a word, on one line and without control characters.

    >>> prompt_word("First Citizen:\nBefore we proceed any further, hear me speak. All: Speak, speak.")
    'we proceed any further, hear me speak. All: Speak, speak.'
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(words) > LONGEST:
        end = words[-LONGEST:]
        words = end.partition(" ")[2] if " " in end else end
    return words or "Once upon a time"
