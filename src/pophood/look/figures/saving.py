"""Writes views to files, in a format by their ending: .svg and .png, .html, .csv, .json and .npz.

The same view gives the same bytes. Only pictures and pages need matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pophood import system
from pophood.errors import BadInput
from pophood.look.figures.page import page
from pophood.look.figures.render import png, svg
from pophood.look.figures.theme import theme_named
from pophood.look.view import View

PICTURES = (".svg", ".png", ".html")  # the endings that need matplotlib


def ending(path: str | PathLike[str]) -> str:
    """Return the ending of `path`; raises BadInput if it is unknown or the path cannot be written."""
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in WRITERS:
        got = f"the ending {target.suffix!r}" if target.suffix else "no ending"
        raise BadInput(f"{target}: {got} names no format: end the name in {', '.join(WRITERS)}")
    system.check_writable_target(path)
    return kind


def save(view: View, path: str | PathLike[str], theme: str = "light") -> None:
    """Write a view to .svg, .png, .html, .csv, .json or .npz, whole or not at all.

    A page holds both themes. Raises BadInput for any other ending, NotFound without matplotlib.
    """
    write = WRITERS[ending(path)]
    theme_named(theme)
    system.atomic_write(path, write(view, theme))


def _npz(view: View) -> bytes:
    arrays: dict[str, Any] = view.arrays()
    if not arrays:
        raise BadInput(f"look {view.name} has tables, no arrays: save it as .csv or .json")
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


WRITERS: dict[str, Callable[[View, str], bytes]] = {
    ".svg": svg,
    ".png": png,
    ".html": lambda view, _: page(view).encode(),
    ".csv": lambda view, _: view.to_csv().encode(),
    ".json": lambda view, _: f"{view.to_json()}\n".encode(),
    ".npz": lambda view, _: _npz(view),
}
