"""The proof behind "nothing leaves this machine": the demo, with every way out guarded by the interpreter.

Python reports each connection, name look-up and child process to audit hooks before it happens (PEP 578). The
hook here refuses and notes them all, so a line of code that tries is seen even if it hides its error. The
engine's C++ opens no sockets (it links none of the calls), and where the system lists a process's open files,
those are looked at too.
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

# Events by their beginnings; "socket.__new__" alone is no attempt (it names a socket without using it).
GUARDED = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostby", "socket.getnameinfo", "socket.getservby",
    "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib.", "nntplib.", "webbrowser.",
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn",
)  # fmt: skip


class Guard:
    """Refuses and remembers every event that could carry a byte out of this process."""

    def __init__(self) -> None:
        self.attempts: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(GUARDED):
            self.attempts.append(one_line(f"{event} {arguments!r}"[:300]))
            raise PophoodError(f"a connection was attempted while all are forbidden: {event}")


def prove(console: Console, as_json: bool) -> int:
    """Run the demo under guard on a model that is here, print the attempts, return 0 if there were none."""
    from pophood.cli.commands.demo import show_demo
    from pophood.cli.options.shared import ModelChoice

    guard, inherited = Guard(), open_sockets()
    sys.addaudithook(guard)  # cannot be removed again: this process does nothing else
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
    """The sockets among this process's open files; None where the system does not list those."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return None
    found = set()
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}
