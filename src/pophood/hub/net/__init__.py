"""The network: the only package that opens a connection to another machine. Here they are counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

MOST_TOLD = 100  # kinds of connections that are remembered; the oldest are forgotten first
Reason = Literal["pull", "first use"]


@dataclass(frozen=True, slots=True)
class Purpose:
    """The purpose of a connection: a model that somebody pulls, or that was named and is not here yet."""

    reason: Reason
    model: str


@dataclass(frozen=True, slots=True)
class OutsideConnections:
    """The connections to one host for one purpose; `first` and `last` are seconds since 1970.

    Those of pip have no host: pip chooses the index, its mirrors and its proxy, and is counted once a run.
    """

    host: str | None
    by: Literal["pophood", "pip"]
    reason: Reason | None
    model: str | None
    first: float
    last: float
    count: int = 1


class Outside:
    """Counts the connections to other machines that this process has opened, or let pip open."""

    opened = 0
    _purpose: ClassVar[ContextVar[Purpose | None]] = ContextVar("purpose of connections", default=None)
    _told: ClassVar[dict[tuple[object, ...], OutsideConnections]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    @contextmanager
    def opening_for(cls, reason: Reason, model: str) -> Iterator[None]:
        """Say what the connections are for that are opened inside the `with`, unless an outer one does."""
        token = cls._purpose.set(cls._purpose.get() or Purpose(reason, model))
        try:
            yield
        finally:
            cls._purpose.reset(token)

    @classmethod
    def count(cls, host: str | None) -> None:
        """Count a connection to a host, or a run of pip if that is None."""
        purpose, now = cls._purpose.get(), time.time()
        key = host, purpose
        with cls._lock:
            cls.opened += 1
            before = cls._told.pop(key, None)
            if before is None:
                reason, model = (purpose.reason, purpose.model) if purpose is not None else (None, None)
                by: Literal["pophood", "pip"] = "pip" if host is None else "pophood"
                cls._told[key] = OutsideConnections(host, by, reason, model, now, now)
            else:
                cls._told[key] = replace(before, last=now, count=before.count + 1)
            if len(cls._told) > MOST_TOLD:
                del cls._told[next(iter(cls._told))]

    @classmethod
    def told(cls) -> list[dict[str, Any]]:
        """Return what was opened, as plain data: the most recent first."""
        with cls._lock:
            return [asdict(one) for one in reversed(cls._told.values())]
