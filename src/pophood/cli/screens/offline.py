"""The proof that no data leaves this machine: the demo under an audit hook that blocks all connections.

Python reports each connection, name look-up and child process to audit hooks before it happens (PEP 578). The
hook here records and refuses them all, so an attempt is noticed even if its caller hides the error. The
engine's C++ code does not link the socket calls, and on systems that list a process's open files, the open
sockets are counted too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from pophood.cli.app import INTERRUPTED
from pophood.cli.terminal.console import Console, one_line
from pophood.errors import PophoodError

# Prefixes of audit events. "socket.__new__" is not an attempt: it only creates a socket.
GUARDED = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostby", "socket.getnameinfo", "socket.getservby",
    "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib.", "nntplib.", "webbrowser.",
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn",
)  # fmt: skip


class Guard:
    """An audit hook that records and refuses every event that could send data out of this process."""

    def __init__(self) -> None:
        self.attempts: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(GUARDED):
            self.attempts.append(one_line(f"{event} {arguments!r}"[:300]))
            raise PophoodError(f"a connection was attempted while all are forbidden: {event}")


def prove(console: Console, as_json: bool) -> int:
    """Run the demo under the guard, print connection attempts and open sockets, and return 0 without any."""
    from pophood.cli.commands.demo import show_demo
    from pophood.cli.options.shared import ModelChoice

    guard, inherited = Guard(), open_sockets()
    sys.addaudithook(guard)  # a hook cannot be removed, so the process does nothing else
    os.environ["POPHOOD_OFFLINE"] = "1"
    choice = ModelChoice(name=None, precision="auto", threads=None, context=None, offline=True)
    failure: PophoodError | None = None
    try:
        demo = show_demo(console, choice, silent=as_json)
    except PophoodError as error:
        failure = error
    else:
        if demo.interrupted:
            return INTERRUPTED
    at_end = open_sockets()
    sockets = None if at_end is None or inherited is None else len(at_end - inherited)
    attempts = guard.attempts
    if as_json:
        console.json({"attempts": attempts, "open_sockets": sockets, "demo_ran": failure is None})
    else:
        console.out(f"Connections attempted: {len(attempts) or 'none'}")
        for attempt in attempts:
            console.out(f"  {attempt}")
        known = "not listed by this system" if sockets is None else sockets or "none"
        console.out(f"Sockets open at the end: {known}")
    if failure is not None:
        raise failure
    return 1 if attempts or sockets else 0


def open_sockets() -> set[str] | None:
    """Return the open sockets of this process; None if the system does not list open files."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return None
    found = set()
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this listing is closed by now
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}
