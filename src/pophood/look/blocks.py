"""The blocks that a view shows on a terminal, as data: heat maps, coloured text, points, plain lines,
sentences.

`Table` (pophood.table) is the sixth kind. `cli/terminal` turns each into coloured cells, or into plain text
for a terminal without colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.table import Table


@dataclass(frozen=True, slots=True)
class Heat:
    """A heat map of `values` [rows, columns], NaN for masked cells; the colours run from `low` to `high`."""

    title: str
    values: NDArray[np.float32]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    low: float
    high: float
    scale: str  # meaning of the colours: "attention weight"
    diverging: bool = False  # two colours around zero instead of one


@dataclass(frozen=True, slots=True)
class Coloured:
    """A text in pieces, each with a value in `low`..`high` that colours its background."""

    title: str
    pieces: tuple[tuple[str, float], ...]
    low: float
    high: float
    scale: str


@dataclass(frozen=True, slots=True)
class Points:
    """A scatter plot of (x, y, label, group); groups have different marks and colours."""

    title: str
    points: tuple[tuple[float, float, str, str], ...]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Preformatted text, such as a diagram; `ascii` is the version for terminals without Unicode."""

    title: str
    text: str
    ascii: str


@dataclass(frozen=True, slots=True)
class Prose:
    """Sentences, each on lines of its own, which are broken where the terminal ends."""

    title: str
    sentences: tuple[str, ...]


Block = Table | Heat | Coloured | Points | Lines | Prose
