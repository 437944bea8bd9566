"""The next commands after a run: complete command lines for the folder in which it was started."""

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
class NextCommand:
    """A command line as words, starting with the program, and its purpose."""

    purpose: str
    words: tuple[str, ...]

    @property
    def quoted(self) -> list[str]:
        """The words, quoted for a shell."""
        return [self.words[0], *map(shlex.quote, self.words[1:])]

    def line(self, program: str = "pophood") -> str:
        """Return the command quoted for a shell; `program` replaces the word pophood.

        >>> NextCommand("Continue a text", ("pophood", "run", "Dear diary,", "-m", "notes-full")).line()
        "pophood run 'Dear diary,' -m notes-full"
        """
        first, *rest = self.quoted
        return " ".join([program if first == "pophood" else first, *rest])


def next_commands(setup: RunSetup, reason: str) -> tuple[NextCommand, ...]:
    """Return commands to use, measure and export the result, and to continue the run if it was cut."""
    place = path_word(setup.out)
    adapter = setup.settings.method == "lora"
    use = ("--adapter", scaled(place)) if adapter else ("-m", place)
    first = NextCommand("Continue a text with it", _run(setup, use))
    if setup.template is not None and setup.data.report.completions_only:
        first = NextCommand("Ask it something", ("pophood", "chat", "Hello!", *use))
    measured = [path_word(path) for path in setup.options.validation_paths or setup.paths]
    model = (path_word(setup.lm.name), *measured, *use) if adapter else (place, *measured)
    return (
        first,
        NextCommand(
            "Measure its loss and perplexity on a text",
            ("pophood", "eval", *model, *_reading(setup.options)),
        ),
        NextCommand(
            "Export it as GGUF, for llama.cpp and others",
            ("pophood", "export", place, "--to", f"{place}.gguf"),
        ),
        *_more(setup, reason, place),
    )


def _run(setup: RunSetup, use: tuple[str, ...]) -> tuple[str, ...]:
    text = prompt_word(setup.prompts[0].text) if setup.prompts else "Once upon a time"
    return ("pophood", "run", *use, "--", text) if text.startswith("-") else ("pophood", "run", text, *use)


def _more(setup: RunSetup, reason: str, place: str) -> list[NextCommand]:
    """Return a command that resumes the run, or repeats a complete one with more minutes."""
    minutes, data = setup.settings.minutes, [path_word(path) for path in setup.paths]
    began = ["--from-scratch", setup.new_model.size] if setup.new_model else ["-m", path_word(setup.lm.name)]
    if reason in ("stopped", "clock"):
        shard = ["--shard"] if setup.shard else []
        more = ["--minutes", f"{minutes:g}"] if minutes is not None else []
        purpose = "Continue the run"
        if minutes is not None:
            purpose = f"Continue the run for {minutes:g} more {'minute' if minutes == 1 else 'minutes'}"
        words = [*_start(setup), "tune", *data, *began, "-o", place, "--resume", *more, *shard]
        return [NextCommand(purpose, tuple(words))]
    if reason != "steps" or minutes is None or not _has_default_settings(setup):
        return []
    words = ["pophood", "tune", *data, *began, "--minutes", f"{2 * minutes:g}", "-o", f"{place}-longer"]
    return [NextCommand("Tune again for twice as long", tuple(words))]


def _has_default_settings(setup: RunSetup) -> bool:
    """Return whether the run had default settings, so that a short command repeats it."""
    settings, options = setup.settings, setup.options
    if setup.new_model is not None or not setup.group.alone:
        return False
    defaults = TrainSettings(method=settings.method, minutes=settings.minutes, patience=settings.patience)
    same_data = DataOptions(length=options.length, seed=options.seed, cache=options.cache) == options
    return same_data and settings == for_model(defaults, setup.lm.config)


def _start(setup: RunSetup) -> list[str]:
    """Return the first words of the command that starts all processes of a run on one machine."""
    group = setup.group
    if group.alone:
        return ["pophood"]
    nodes = [] if group.size == group.local_size else ["--nnodes", "...", "--rdzv-endpoint", "..."]
    return ["torchrun", "--nproc-per-node", str(group.local_size), *nodes, "-m", "pophood"]


def _reading(options: DataOptions) -> list[str]:
    """Return the options of `pophood eval` that read data as the run did."""
    words = [] if options.format == "auto" else ["--format", options.format]
    if options.columns:
        words += ["--columns", ",".join(f"{ours}={theirs}" for ours, theirs in options.columns.items())]
    if options.completions_only is not None:
        words.append("--completions-only" if options.completions_only else "--everything")
    return words


def path_word(path: Path | str) -> str:
    """Return a path in a form that no command mistakes for an option.

    >>> path_word(Path("-notes.txt")), path_word("notes.txt")
    ('./-notes.txt', 'notes.txt')
    """
    return f"./{path}" if str(path).startswith("-") else str(path)


def scaled(place: str) -> str:
    """Return an adapter's folder for `--adapter`; one with a colon gets its scale, which is 1.

    >>> scaled("notes-lora"), scaled("notes:2")
    ('notes-lora', 'notes:2:1')
    """
    return f"{place}:1" if ":" in place else place


def prompt_word(text: str) -> str:
    r"""Return the end of a prompt from the start of a word, on one line and without control characters.

    >>> prompt_word("First Citizen:\nBefore we proceed any further, hear me speak. All: Speak, speak.")
    'we proceed any further, hear me speak. All: Speak, speak.'
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(words) > LONGEST:
        end = words[-LONGEST:]
        words = end.partition(" ")[2] if " " in end else end
    return words or "Once upon a time"
