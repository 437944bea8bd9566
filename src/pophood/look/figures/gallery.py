"""Every view of one text as files in one folder: a picture and a page each, and an index that shows them.

The folder needs nothing from elsewhere and can be moved; the same model and text give the same bytes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pophood import look, system
from pophood.errors import PophoodError
from pophood.look.figures.page import escaped, fill, page
from pophood.look.figures.render import draw, svg_of
from pophood.look.source import ViewSource
from pophood.look.view import View

if TYPE_CHECKING:
    from pophood.model.lm import LM


@dataclass(frozen=True, slots=True)
class Gallery:
    """What was written, and which view failed for what reason."""

    written: dict[str, View]
    failed: dict[str, str]


def write_gallery(
    lm: LM, text: str, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Gallery:
    """Write NAME.svg and NAME.html for every view, then index.html; a view that fails is left out and named.

    `progress(done, total)` counts the views. Raises NotHere without matplotlib, OSError for a bad folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Gallery({}, {})
    for done, name in enumerate(look.VIEWS):
        progress(done, len(look.VIEWS))
        make: Callable[..., View] = getattr(look, name)
        given = {"text": text} if "text" in inspect.signature(make).parameters else {}
        try:
            view = make(lm, **given)
            figure = draw(view, "light")
            system.atomic_write(folder / f"{name}.svg", svg_of(figure, view, "light"))
            system.atomic_write(folder / f"{name}.html", page(view, figure).encode("utf-8"))
        except PophoodError as error:
            made.failed[name] = str(error)
        except (
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # our own mistake: say it, go on
            made.failed[name] = f"a mistake inside pophood, please report it: {type(error).__name__}: {error}"
        else:
            made.written[name] = view
    progress(len(look.VIEWS), len(look.VIEWS))
    system.atomic_write(folder / "index.html", _index(lm, text, made).encode("utf-8"))
    return made


def _index(lm: LM, text: str, made: Gallery) -> str:
    items = [
        f'<li><a href="{name}.html"><img src="{name}.svg" alt=""><h2>{name}</h2></a>'
        f"<p>{escaped(view.title)}</p>"
        f'<p><a href="{name}.svg" aria-label="{name} as SVG">SVG</a></p></li>'
        for name, view in made.written.items()
    ]
    items += [
        f"<li><h2>{name}</h2><p>Not drawn: {escaped(reason)}</p></li>" for name, reason in made.failed.items()
    ]
    source = ViewSource.of(lm)
    adapters = ", ".join(source.adapter_names())
    facts = {"Model": lm.name, "Adapters": adapters, "Computed at": source.precision, "Text": text}
    body = f'<ul class="gallery">\n{chr(10).join(items)}\n</ul>'
    return fill(f"A look inside {lm.name}{source.with_adapters()}", facts, body, images="'self' data:")
