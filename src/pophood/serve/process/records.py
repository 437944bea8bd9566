"""Records that a model's process and the HTTP process send each other besides `messages`, while it loads.

    HTTP process ── LoadOrder ──► model's process
                 ◄── LoadProgress, LoadLine, then LoadedFacts or LoadRefusal, then lists of events

LoadLine and EngineFault may come later too. Nothing but plain values is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pophood.serve.capacity import Capacity


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """The model to load, and how it computes.

    `context` and `memory` are what the user wants, None for what fits; `reserved` bytes of free memory belong
    to other models. `adapters` are names and places. `waiting` requests may wait at the worker. `cache_dir`
    keeps prefixes, in `cache_size` bytes at most.
    """

    name: str
    path: Path
    precision: str = "auto"
    kv: str = "auto"
    threads: int | None = None
    context: int | None = None
    memory: int | None = None
    reserved: int = 0
    parallel: int = 16
    waiting: int = 256
    adapters: tuple[tuple[str, str], ...] = ()
    cache_dir: Path | None = None
    cache_size: int = 0


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """`done` of `total` weights are packed."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class LoadLine:
    """A line for the console."""

    words: str


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """The folder of stored prefixes: its place, the bytes that it may hold, and the files that it has."""

    folder: Path
    limit: int
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class LoadedFacts:
    """The facts of a model that is loaded and computes.

    `public_name` is the name for other programs; `digest`, `precision` and `isa` tell computations apart;
    `how_computed` is the precision in words. `remarks` and `details` are lines for the console.
    """

    public_name: str
    digest: str
    precision: str
    kv: str
    isa: str
    how_computed: str
    threads: int
    weight_bytes: int
    vocab_size: int
    trained_window: int
    parameters: int
    layers: int
    heads: int
    capacity: Capacity
    cache: CacheFacts | None
    remarks: tuple[str, ...]
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadRefusal:
    """The reason why a model is not loaded: the name of an error's class, its words, and where it was."""

    kind: str
    words: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class EngineFault:
    """The error that ended the worker's thread; the process ends after it."""

    words: str
