"""Counts of what a running server holds: requests, blocks, descriptors, memory; from /metrics and /proc."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.processes import HANG_SECONDS, descendants
from tests.serve.command import Command
from tests.serve.test_metrics import read
from tests.serve.wire import request

OWN_SOCKETS = 3  # the one that listens, and the pair with which another thread wakes the loop
GAUGES = ("pophood_requests_running", "pophood_requests_waiting")


def figures(server: Command) -> dict[str, Any]:
    """Return every figure of /metrics."""
    return read(request(server.port, "/metrics", key=server.key).body.decode())


def settled(server: Command) -> dict[str, Any]:
    """Wait until nothing is computed, and return the figures."""
    end = time.monotonic() + HANG_SECONDS
    while time.monotonic() < end:
        found = figures(server)
        if not any(found[name] for name in GAUGES) and found["pophood_connections"] == 1:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"requests are computed that nobody waits for: {found}")


def reserved(found: dict[str, Any]) -> int:
    """Return the blocks of keys and values that requests hold, without those kept for later prompts."""
    return int(found["pophood_kv_blocks_used"] - found["pophood_kv_blocks_cached"])


def server_errors(found: dict[str, Any]) -> list[str]:
    """Return the figures that count answers with a status of 5xx."""
    return [name for name in found if "status=5" in name]


def descriptors(server: Command) -> int:
    """Return the number of open files and sockets of a server without connections."""
    end, found = time.monotonic() + HANG_SECONDS, [""]
    while time.monotonic() < end:
        places = list(Path(f"/proc/{server.process.pid}/fd").iterdir())
        found = [str(place.readlink()) for place in places if place.is_symlink()]
        if sum(name.startswith("socket:") for name in found) == OWN_SOCKETS:
            return len(found)
        time.sleep(0.05)
    raise TimeoutError(f"connections stay open: {found}")


def threads(server: Command) -> int:
    """Return the number of threads of a server."""
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def resident(server: Command) -> int:
    """Return the anonymous resident memory of a server and its children in bytes.

    Pages of files come and go by themselves.
    """
    pids = [server.process.pid, *(child.pid for child in descendants(server.process.pid))]
    return sum(_status(pid, "RssAnon") for pid in pids)


class Peak:
    """The most resident memory of a server, pages of files among it, above what it has now."""

    def __init__(self, server: Command) -> None:
        self._server = server
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak begins anew
        self._before = _status(server.process.pid, "VmRSS")

    @property
    def grown(self) -> int:
        """Bytes above the beginning."""
        return _status(self._server.process.pid, "VmHWM") - self._before


def _status(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:")) << 10
