"""Text that is piped to a command which has its prompt already: `cat notes.txt | pophood chat "Sum it up"`.

A program's stdin is often no text that anybody meant for it: cron and CI leave an empty or an open pipe
there, a shell's `while read` loop the rest of its own input. Such stdin must neither hang the command nor
change its prompt. So a terminal, `/dev/null` and other devices are left alone, a file that somebody has begun
to read is left alone too, and a pipe has a few seconds to bring its first byte. What is ignored is said.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Callable
from typing import TextIO

PATIENCE = 5.0  # seconds in which the first byte, or the end, of a pipe must come
SILENT = 1.0  # of these, the seconds before the person is told
Say = Callable[[str], object]


def piped_bytes(stream: TextIO, say: Say) -> bytes:
    """The bytes of stdin where they were piped or redirected to this command; b"" where there are none."""
    if stream.isatty():
        return b""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # a stand-in inside another program: its bytes are in memory
        return stream.buffer.read()
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # closed
        return b""
    if stat.S_ISREG(mode):
        if os.lseek(descriptor, 0, os.SEEK_CUR) > 0:
            say("stdin is a file that another program is reading: left alone (- as the prompt reads it)")
            return b""
        return stream.buffer.read()
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return b""
    first = _first_bytes(descriptor, say)
    return first + stream.buffer.read() if first else b""


def _first_bytes(descriptor: int, say: Say) -> bytes:
    """The first bytes of a pipe; b"" at its end, or if none come in time."""
    came: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        try:
            os.set_blocking(descriptor, True)
            came.put(os.read(descriptor, 1 << 16))
        except OSError:
            came.put(b"")

    # A thread, since Windows cannot wait for a pipe; one that waits for ever is left behind at the end.
    threading.Thread(target=read, daemon=True).start()
    try:
        return came.get(timeout=SILENT)
    except queue.Empty:
        say(f"waiting up to {PATIENCE:g} s for text on stdin, a pipe (`< /dev/null` if none is meant)")
    try:
        return came.get(timeout=PATIENCE - SILENT)
    except queue.Empty:
        say(f"nothing came through the pipe on stdin within {PATIENCE:g} s: going on without it")
        return b""
