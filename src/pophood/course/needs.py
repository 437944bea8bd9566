"""Optional packages that some pages need (small: the notebook imports it), and how to install them."""

from __future__ import annotations

import importlib

from pophood.errors import NotFound

# Requirement in a page's front matter -> the function that raises NotFound without it. The module is given by
# name and imported late, since it may belong to a higher layer than the course.
NEEDS = {"torch": ("pophood.train.torch_install", "require_torch")}


class Missing(NotFound):
    """Raised when a page's requirement is not installed; a notebook shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython's hook for the display of an exception
        return [str(self)]


def need(what: str) -> None:
    """Raise Missing, with the way to install it, if a requirement is missing; "" requires nothing.

    >>> need("")
    """
    if not what:
        return
    module, function = NEEDS[what]
    try:
        getattr(importlib.import_module(module), function)()
    except NotFound as error:
        raise Missing(str(error)) from None
