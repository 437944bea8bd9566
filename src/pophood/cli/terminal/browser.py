"""Opening a link that must stay secret in the browser, without showing it to other users of the machine."""

from __future__ import annotations

import html
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pophood.cli.terminal.console import Console
from pophood.system import home, unique

PAGE = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={link}">'


@contextmanager
def opened_link(console: Console) -> Iterator[Callable[[str], None]]:
    """Give a function that opens a link; what it leaves on the disk is gone after the block.

    A program's arguments can be seen by every user, so the browser is not started with the link: it gets the
    name of a file that only this user can read, and that leads there.
    """
    places: list[Path] = []

    def show(link: str) -> None:
        if not can_open():
            console.say("no browser can be opened from here: open the link yourself")
            return
        place = _folder() / f"{'.' if _folder() == home() else ''}pophood-open-{unique()}.html"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            console.say(f"{place}: cannot be written ({error.strerror}): open the link yourself")
            return
        places.append(place)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(PAGE.format(link=html.escape(link)))
        # Some browsers keep their caller waiting until they end.
        threading.Thread(target=webbrowser.open, args=(place.as_uri(),), daemon=True).start()

    try:
        yield show
    finally:
        for place in places:
            with suppress(OSError):
                place.unlink()


def can_open() -> bool:
    """Return whether there is a screen for a browser; one in the terminal would hide what the server says."""
    if sys.platform in ("win32", "darwin") or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _folder() -> Path:
    """Return where the file may be: browsers that are snaps see nothing hidden, such as ~/.local."""
    return Path.home() if Path("/snap").is_dir() else home()
