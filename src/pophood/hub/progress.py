"""Communication with the caller of a download: announcement and question before it, progress during it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pophood.errors import NotFound, PophoodError
from pophood.system import disk_of, free_disk, size_text

Say = Callable[[str], object]  # shows one line
Ask = Callable[[str], bool]  # asks a question; True means yes


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a download in bytes: of the file that is being fetched, and of all files."""

    file: str
    file_done: int
    file_size: int
    done: int
    size: int


OnProgress = Callable[[Progress], object]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The callbacks of a download; without `ask` no question is asked, `detail` gets lines for `-v`.

    `accept_terms` says that the user has accepted the terms of the model, where it has some.
    """

    say: Say
    ask: Ask | None = None
    progress: OnProgress | None = None
    detail: Say | None = None
    accept_terms: bool = False


def say_to_log(line: str) -> None:
    """Log a line for a caller that gave no `announce` (Python prints warnings to stderr)."""
    import logging

    logging.getLogger("pophood").warning("%s", line)


@dataclass(frozen=True, slots=True)
class Download:
    """A planned download."""

    what: str
    origin: str
    target: Path
    size: int  # bytes of all files
    left: int  # bytes that are not here yet
    disk: int  # bytes that the disk must have free
    terms: tuple[str, ...] = ()  # lines about the model's terms
    asked: str = ""  # the question about them, unless they are accepted already: "accept ..."


def announce_and_ask(plan: Download, dialogue: Dialogue, instead: str = "") -> None:
    """Announce size, origin, target and free disk of a download, and ask before anything is fetched.

    Terms that the model has are shown, and the question is also about them unless they are accepted already.
    `instead` ends the question with the alternative to the download. Raises PophoodError if it does not fit
    on the disk, NotFound if the user declines.
    """
    free = free_disk(plan.target)
    here = f" ({size_text(plan.size - plan.left)} of it is here already)" if plan.left < plan.size else ""
    dialogue.say(
        f"{plan.what}: fetching {size_text(plan.size)}{here} from {plan.origin} into {plan.target} "
        f"({size_text(free)} free)"
    )
    if plan.disk > free:
        raise PophoodError(
            f"{plan.what}: the disk is too full: needed {plan.disk:,} bytes, free {free:,} at {plan.target}, "
            f"on {disk_of(plan.target)}: free some space there, or point POPHOOD_HOME to another disk"
        )
    for line in plan.terms:
        dialogue.say(f"{plan.what}: {line}")
    question = f"Fetch {plan.what} ({size_text(plan.left)})?{instead}"
    if plan.asked and not dialogue.accept_terms:
        question = f"Do you {plan.asked}, and fetch {plan.what} ({size_text(plan.left)})?"
    if dialogue.ask is not None and not dialogue.ask(question):
        raise NotFound(
            f"{plan.what}: not fetched, as you chose; `pophood list` shows the models on this machine"
        )
