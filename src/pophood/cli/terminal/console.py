"""Console output in any encoding: results go to stdout, messages about them to stderr.

A model's text is printed unchanged, with two exceptions: a character that the console's encoding lacks is
written as an escape instead of raising an error, and on a terminal control characters are made visible, so
that no model can move the cursor, set the clipboard or hide text.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

QUIET, NORMAL, VERBOSE = -1, 0, 1

# Characters that reorder the text after them ("Trojan Source", Boucher and Anderson 2021).
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Write control and reordering characters as escapes, except those in `keep`.

    >>> visible("a\x1b[2Jb\n")
    'a\\x1b[2Jb\n'
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if c not in keep and (unicodedata.category(c) in ("Cc", "Cs") or c in _REORDERING)
        else c
        for c in text
    )


def one_line(text: str) -> str:
    """Fold a message onto one line of visible characters."""
    return visible(" ".join(text.split()), keep="")


def prepare_streams() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, and replace closed streams."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: PTH123, SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_quietly() -> None:
    """Redirect stdout to the null device after its reader has left, so that Python's last flush is silent."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Console:
    """Prints a command's results and messages, at the chosen verbosity (`-q`, `-v`)."""

    def __init__(self, verbosity: int = NORMAL) -> None:
        self.verbosity = verbosity
        self._open_line = False  # True if stdout's last line has no line break yet

    def out(self, text: str = "") -> None:
        """Print a line or a block of results to stdout."""
        self.write(f"{text}\n")

    def write(self, text: str, *, bold: bool = False) -> None:
        """Write text to stdout and flush it, so that tokens appear as they are generated."""
        if not text:
            return
        from pophood.system import colour_ok

        shown = visible(text) if sys.stdout.isatty() else text
        self._open_line = True  # set before the write, since Ctrl-C may come right after it
        sys.stdout.write(f"\x1b[1m{shown}\x1b[0m" if bold and colour_ok(sys.stdout) else shown)
        sys.stdout.flush()
        self._open_line = not text.endswith("\n")

    def paint(self, text: str) -> None:
        """Print text with its own colour codes, in which the caller has escaped other control characters."""
        sys.stdout.write(text)
        sys.stdout.flush()
        self._open_line = False

    def end_line(self) -> None:
        """End stdout's current line if it is unfinished."""
        if self._open_line:
            self.write("\n")

    def json(self, value: object) -> None:
        """Print one JSON document, with `\\u` escapes only if stdout's encoding is not UTF-8."""
        narrow = (sys.stdout.encoding or "ascii").lower().replace("-", "") not in ("utf8", "utf8sig")
        self.out(json.dumps(value, ensure_ascii=narrow, allow_nan=False, indent=2))

    def result(self, value: object, text: str, *, as_json: bool) -> None:
        """Print a result on stdout, as a JSON document or as text."""
        if as_json:
            self.json(value)
        else:
            self.out(text)

    def say(self, text: str) -> None:
        """Print a message on stderr, unless `-q` was given."""
        if self.verbosity > QUIET:
            self._stderr(text)

    def detail(self, text: str) -> None:
        """Print a detail on stderr, only with `-v`."""
        if self.verbosity >= VERBOSE:
            self._stderr(text)

    def _stderr(self, text: str) -> None:
        if self._open_line and sys.stdout.isatty() and sys.stderr.isatty():
            self.end_line()
        with contextlib.suppress(OSError):  # a closed stderr must not stop the command
            sys.stderr.write(visible(text) + "\n")
            sys.stderr.flush()

    def open_page(self, path: Path) -> None:
        """Show a file in a browser, or say where it is."""
        import webbrowser

        if not webbrowser.open(path.absolute().as_uri()):
            self.say(f"no browser could be opened: open {path.absolute()} yourself")

    def interactive(self) -> bool:
        """Return True if stdin and stderr are terminals, so that the user can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()


def facts_of(record: object, *names: str, **renamed: str) -> dict[str, Any]:
    """Return attributes of a record for --json; `bytes="size"` puts `record.size` first, under a new name.

    >>> facts_of(1 + 2j, "imag", whole="real")
    {'whole': 1.0, 'imag': 2.0}
    """
    return {new: getattr(record, old) for new, old in [*renamed.items(), *zip(names, names, strict=True)]}


@contextlib.contextmanager
def typing_kept(stream: TextIO) -> Iterator[None]:
    """Keep input that is typed at the terminal `stream` during the block, even if Ctrl-C is pressed.

    By default a Unix terminal discards all waiting input at an interrupt (termios(3), NOFLSH).
    """
    if sys.platform == "win32" or not stream.isatty():
        yield
        return
    import termios

    try:
        before = termios.tcgetattr(stream)
    except termios.error:  # the terminal was closed
        yield
        return
    during = [*before]
    during[3] = before[3] | termios.NOFLSH
    termios.tcsetattr(stream, termios.TCSANOW, during)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(stream, termios.TCSANOW, before)


def plain(text: str, stream: TextIO) -> str:
    """Replace typographic characters of pophood's own messages by ASCII if `stream` cannot encode them."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        for wide, narrow in (("…", "..."), ("·", "-"), ("→", "->"), ("×", "x"), ("█", "#"), ("’", "'")):
            text = text.replace(wide, narrow)
    return text
