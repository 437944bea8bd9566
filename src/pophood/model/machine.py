"""This machine's instruction sets, threads and rates (small: the engine and `doctor` share it)."""

from __future__ import annotations

import os

from pophood import _native, system
from pophood.errors import BadInput


def read_bandwidth(threads: int, size: int = 1 << 30, rounds: int = 10) -> float:
    """Measure the bytes per second that some threads read: the best of `rounds` sums over `size` bytes."""
    return float(_native.read_bandwidth(threads, size, rounds))


def multiply_rate(threads: int, rounds: int = 10) -> float:
    """Measure the operations per second of 8-bit products from the caches: the best of `rounds`.

    A multiplication and an addition are two operations. `POPHOOD_ISA` forces an instruction set.
    """
    return float(_native.multiply_rate(threads, rounds, forced_isa()))


def instruction_sets() -> list[str]:
    """Return the instruction sets that can run here, the fastest last: ["scalar", "avx2"]."""
    return str(_native.available_isa()).split()


def forced_isa() -> str:
    """Return the instruction set that `POPHOOD_ISA` names, "" for none; BadInput if it cannot run here."""
    forced = os.environ.get("POPHOOD_ISA", "")
    if forced and forced not in instruction_sets():
        raise BadInput(f"POPHOOD_ISA={forced} cannot run here; there are: {', '.join(instruction_sets())}")
    return forced


def multiplies_bf16() -> bool:
    """Return whether matrices in BF16 are multiplied in it here, with sums in f32, under "auto"."""
    return (forced_isa() or instruction_sets()[-1]) in ("avx512bf16", "amx")


def checked_threads(threads: int | None) -> int:
    """Return the number of threads; idle ones may spin only if each has a processor of its own."""
    available = system.default_threads()
    chosen = available if threads is None else threads
    if chosen < 1:
        raise BadInput(f"threads must be at least 1, got {chosen}")
    _native.allow_spinning(chosen <= available)
    return chosen
