"""What some pages need beyond the package, and the one line that says how to get it. Installs nothing."""

from __future__ import annotations

import importlib

from pophood.errors import NotFound

# What a page's front matter may name -> who raises NotFound without it. Named and not imported: like the
# cells of a page, it may stand above the course.
NEEDS = {"torch": ("pophood.train.torch_install", "require_torch")}


class Missing(NotFound):
    """What a page needs is not on this machine; a notebook shows its one line and no traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks an error how it wants to be shown
        return [str(self)]


def need(what: str) -> None:
    """Raise Missing, with the line that helps, unless it is here; "" is always here.

    >>> need("")
    """
    if not what:
        return
    module, function = NEEDS[what]
    try:
        getattr(importlib.import_module(module), function)()
    except NotFound as error:
        raise Missing(str(error)) from None
