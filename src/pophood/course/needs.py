"""Optional packages that some pages need (small: the notebook imports it), and how to install them."""

from __future__ import annotations

import importlib

from pophood.course.words import Words, words_in
from pophood.errors import NotFound

# Requirement in a page's front matter -> a module and two of its functions: one that raises NotFound without
# the requirement, and one that returns the command that installs it. The module is given by name and imported
# late, since it may belong to a higher layer than the course.
NEEDS = {"torch": ("pophood.train.torch_install", "import_torch", "torch_command")}


class Missing(NotFound):
    """Raised when a page's requirement is not installed; a notebook shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython's hook for the display of an exception
        return [str(self)]


def need(what: str, words: Words | None = None) -> None:
    """Raise Missing, with the way to install it, if a requirement is missing; "" requires nothing.

    >>> need("")
    """
    if not what:
        return
    name, require, command = NEEDS[what]
    module = importlib.import_module(name)
    try:
        getattr(module, require)()
    except NotFound:
        phrase = (words or words_in())[f"needs_{what}"]
        raise Missing(phrase.format(command=getattr(module, command)())) from None
