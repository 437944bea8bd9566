"""Pictures of views: matplotlib figures, SVG, PNG, one-file HTML. One file per view draws its picture.

`theme.py` has the colours, `parts.py` the pieces, `fit.py` keeps labels apart, `drawing.py` draws a whole
picture, `render.py` turns it into bytes, `page.py` into an HTML page,
`saving.py` into a file; `notebook.py` has a view's figures for a notebook.
"""

from __future__ import annotations

from pophood.look.figures.notebook import widget
from pophood.look.figures.page import has_drawings, notebook_html
from pophood.look.figures.render import draw, require
from pophood.look.figures.saving import save

__all__ = ["draw", "has_drawings", "notebook_html", "require", "save", "widget"]
