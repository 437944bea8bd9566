"""What the hub tells the caller, and asks: sizes in words, progress records, the question beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pophood.errors import NotHere, PophoodError
from pophood.system import disk_of, free_disk

Say = Callable[[str], object]
Ask = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a download stands, in bytes; `file` is the one that moves, the sums are over all files."""

    file: str
    file_done: int
    file_size: int
    done: int
    size: int


def say_to_log(line: str) -> None:
    """Say something aloud for a caller who gave no `announce` (Python prints warnings to stderr)."""
    import logging

    logging.getLogger("pophood").warning("%s", line)


def size_text(n: int) -> str:
    """Bytes for people, as disks and hubs count them: `548_105_171` -> "548.1 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= factor:
            return f"{n / factor:.1f} {unit}"
    return f"{n} bytes"


@dataclass(frozen=True, slots=True)
class Download:
    """What is about to be fetched, in bytes: all of it, what is not here yet, and what the disk must take."""

    what: str
    origin: str
    target: Path
    size: int
    left: int
    disk: int


def state_and_ask(plan: Download, say: Say, ask: Ask | None, instead: str = "") -> None:
    """Say size, origin, target and free disk, refuse what cannot fit, and ask, before anything is fetched.

    Raises PophoodError without the disk for it, NotHere when the person declines.
    """
    free = free_disk(plan.target)
    here = f" ({size_text(plan.size - plan.left)} of it are here already)" if plan.left < plan.size else ""
    say(
        f"{plan.what}: fetching {size_text(plan.size)}{here} from {plan.origin} into {plan.target}, "
        f"where {size_text(free)} are free"
    )
    if plan.disk > free:
        raise PophoodError(
            f"{plan.what}: the disk is too full: needed {plan.disk:,} bytes, free {free:,} at {plan.target}, "
            f"on {disk_of(plan.target)}: free some space there, or point POPHOOD_HOME to another disk"
        )
    if ask is not None and not ask(f"Fetch {plan.what} ({size_text(plan.left)})?{instead}"):
        raise NotHere(f"{plan.what}: not fetched, as you chose; `pophood list` shows what is here")
