"""A view's figures as a widget in a notebook, with pickers, sliders and labels (small: one function).

The modules that draw saved pages draw here; anywidget (extra [notebook]) carries script and figures to
JupyterLab, VS Code, Colab or marimo. It is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pophood.errors import NotFound
from pophood.look.data import figures_data
from pophood.look.view import View
from pophood.web import built_script

if TYPE_CHECKING:
    from anywidget import AnyWidget

MISSING = "widgets need anywidget, which is not installed: `pip install 'pophood[notebook]'` brings it"
NOT_BUILT = "this installation has no scripts that draw: `make studio` builds them in a checkout"


def widget(view: View) -> AnyWidget:
    """Return the figures of a view as a widget for a notebook.

    Raises NotFound without anywidget or without the built script.

        look.attention(lm, "The capital of Spain is").widget()
    """
    script = built_script("widget")
    if script is None:
        raise NotFound(NOT_BUILT)
    return _drawn(script, figures_data(view))


def _drawn(script: str, figures: list[dict[str, Any]]) -> AnyWidget:
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise NotFound(MISSING) from None

    class Figures(anywidget.AnyWidget):
        """The figures, and the script that draws them."""

        _esm = script
        figures: Any = traitlets.List().tag(sync=True)

    return Figures(figures=figures)
