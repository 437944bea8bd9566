"""Text that is piped to a command that also has a prompt: `cat notes.txt | pophood chat "Sum it up"`.

Standard input is often not meant for the command: cron and CI leave an empty or open pipe there, and a
shell's `while read` loop the rest of its own input. That must neither hang the command nor change its prompt.
So a terminal, `/dev/null` and other devices are ignored, and a file that another program has begun to read; a
pipe has a few seconds to deliver its first byte. A message says what was ignored.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Callable
from typing import TextIO

WAIT_SECONDS = 5.0  # to wait for the first byte, or the end, of a pipe
SILENT_SECONDS = 1.0  # of these, before a message
Say = Callable[[str], object]


def piped_bytes(stream: TextIO, say: Say) -> bytes:
    """Return the bytes that were piped or redirected to this command; b"" if there are none."""
    if stream.isatty():
        return b""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a real file, but an object of another program with bytes in memory
        return stream.buffer.read()
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # closed
        return b""
    if stat.S_ISREG(mode):
        if os.lseek(descriptor, 0, os.SEEK_CUR) > 0:
            say("stdin is a file that another program is reading: ignored (- as the prompt reads it)")
            return b""
        return stream.buffer.read()
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return b""
    first = _first_bytes(descriptor, say)
    return first + stream.buffer.read() if first else b""


def _first_bytes(descriptor: int, say: Say) -> bytes:
    """Return the first bytes of a pipe; b"" at its end, or if none arrive in time."""
    first: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        try:
            os.set_blocking(descriptor, True)
            first.put(os.read(descriptor, 1 << 16))
        except OSError:
            first.put(b"")

    # A thread, since Windows cannot wait for a pipe with a time limit; a daemon, since it may never end.
    threading.Thread(target=read, daemon=True).start()
    try:
        return first.get(timeout=SILENT_SECONDS)
    except queue.Empty:
        say(f"waiting up to {WAIT_SECONDS:g} s for text on stdin, a pipe (`< /dev/null` if none is meant)")
    try:
        return first.get(timeout=WAIT_SECONDS - SILENT_SECONDS)
    except queue.Empty:
        say(f"nothing came through the pipe on stdin within {WAIT_SECONDS:g} s: continuing without it")
        return b""
