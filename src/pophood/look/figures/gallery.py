"""All views of one text in one folder: a picture and a page each, and an index page.

The folder is self-contained and can be moved; the same model and text give the same bytes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pophood import look, system
from pophood.errors import PophoodError
from pophood.look.figures.page import page
from pophood.look.figures.render import draw, svg_of
from pophood.look.source import ViewSource
from pophood.look.view import View
from pophood.model.lm import LM
from pophood.web import render_page


@dataclass(frozen=True, slots=True)
class Gallery:
    """The views that were written, and the reason for each that failed."""

    written: dict[str, View]
    failed: dict[str, str]


def write_gallery(
    lm: LM, text: str, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Gallery:
    """Write NAME.svg and NAME.html for every view, then index.html; a view that fails is left out and listed.

    `progress(done, total)` counts the views. Raises NotFound without matplotlib, OSError for a bad folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gallery = Gallery({}, {})
    for done, name in enumerate(look.VIEWS):
        progress(done, len(look.VIEWS))
        function: Callable[..., View] = getattr(look, name)
        arguments = {"text": text} if "text" in inspect.signature(function).parameters else {}
        try:
            view = function(lm, **arguments)
            figure = draw(view, "light")
            system.atomic_write(folder / f"{name}.svg", svg_of(figure, view, "light"))
            system.atomic_write(folder / f"{name}.html", page(view, figure).encode("utf-8"))
        except PophoodError as error:
            gallery.failed[name] = str(error)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # A bug of ours must not stop the other views.
            what = f"{type(error).__name__}: {error}"
            gallery.failed[name] = f"a bug in pophood, please report it: {what}"
        else:
            gallery.written[name] = view
    progress(len(look.VIEWS), len(look.VIEWS))
    system.atomic_write(folder / "index.html", _index(lm, text, gallery).encode("utf-8"))
    return gallery


def _index(lm: LM, text: str, gallery: Gallery) -> str:
    source = ViewSource.of(lm)
    return render_page(
        __package__,
        "gallery",
        document=True,
        title=f"A look inside {lm.name}{source.with_adapters()}",
        images="'self' data:",
        facts={
            "Model": lm.name,
            "Adapters": ", ".join(source.adapter_names()),
            "Computed at": source.precision,
            "Text": text,
        },
        written=gallery.written,
        failed=gallery.failed,
    )
