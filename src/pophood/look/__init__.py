"""Look inside a model: each view is one function that returns numbers, tables and a picture.

    from pophood import look
    look.next(lm, "The capital of Spain is")

`views/` has one file per view, named like its function and its command (`pophood look NAME`). A function is
imported on first use; the view that it returns records the options of the call.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from pophood.look import figures
from pophood.look.reproduce import record_arguments
from pophood.look.view import View

if TYPE_CHECKING:
    from pophood.look.data import figure_data as figure_data
    from pophood.look.data import figures_data as figures_data
    from pophood.look.views.architecture import architecture as architecture
    from pophood.look.views.attention import attention as attention
    from pophood.look.views.before import before as before
    from pophood.look.views.dropout import dropout as dropout
    from pophood.look.views.embeddings import embeddings as embeddings
    from pophood.look.views.feedforward import feedforward as feedforward
    from pophood.look.views.hidden import hidden as hidden
    from pophood.look.views.lens import lens as lens
    from pophood.look.views.next import next as next  # noqa: A004
    from pophood.look.views.norm import norm as norm
    from pophood.look.views.output import output as output
    from pophood.look.views.parameters import parameters as parameters
    from pophood.look.views.positions import positions as positions
    from pophood.look.views.residual import residual as residual
    from pophood.look.views.scale import scale as scale
    from pophood.look.views.surprise import surprise as surprise
    from pophood.look.views.tokens import tokens as tokens

View.pictures = figures

DATA = ("figure_data", "figures_data")
# In the order of the talk.
VIEWS = (
    "architecture",
    "parameters",
    "scale",
    "tokens",
    "embeddings",
    "positions",
    "before",
    "hidden",
    "norm",
    "residual",
    "dropout",
    "attention",
    "feedforward",
    "output",
    "next",
    "surprise",
    "lens",
)


def __getattr__(name: str) -> Any:
    """Import a view, or the functions of data.py, on first use."""
    if name in DATA:
        return getattr(importlib.import_module(f"{__name__}.data"), name)
    if name not in VIEWS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; the views: {', '.join(VIEWS)}")
    function = record_arguments(getattr(importlib.import_module(f"{__name__}.views.{name}"), name))
    setattr(sys.modules[__name__], name, function)
    return function


def __dir__() -> list[str]:
    return sorted([*VIEWS, "VIEWS"])
