"""View: the result of looking at one thing; arrays and tables first, pictures last. The base of every view.

A subclass is a frozen dataclass whose fields are the numbers. It describes them (`headline`, `alt`, `notes`),
lays them out as tables, and lists what a terminal shows. `look/figures/<name>.py` draws its picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pophood.look.blocks import Block
from pophood.look.reproduce import python_code, shell_command
from pophood.look.source import ViewSource
from pophood.table import Table

if TYPE_CHECKING:
    import pandas
    from anywidget import AnyWidget
    from matplotlib.figure import Figure


class Pictures(Protocol):
    """Draws and saves views. `look/__init__` sets `look.figures`, so that views do not import matplotlib."""

    def draw(self, view: View, theme: str = ...) -> Figure:
        """Return the picture of a view."""

    def save(self, view: View, path: str | PathLike[str], theme: str = ...) -> None:
        """Write a view to a file."""

    def notebook_html(self, view: View) -> str:
        """Return the HTML that a notebook shows."""

    def widget(self, view: View) -> AnyWidget:
        """Return a view's figures as a widget for a notebook."""


@dataclass(frozen=True)
class View:
    """The result of one view function. Subclasses add the numbers as fields."""

    source: ViewSource
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False, compare=False)
    name: ClassVar[str]  # the name of the view's module, and of its command: `pophood look NAME`
    painter: ClassVar[str]  # the module whose `draw` makes the picture
    pictures: ClassVar[Pictures]
    array_names: ClassVar[tuple[str, ...]] = ()  # the fields and properties that `arrays` returns

    def __init_subclass__(cls) -> None:
        cls.name = vars(cls).get("name", cls.__module__.rpartition(".")[2])
        cls.painter = vars(cls).get("painter", f"pophood.look.figures.{cls.name}")

    @property
    def headline(self) -> str:
        """One line that states the main result, without the adapters."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The headline, with the adapters that the model used."""
        return self.headline + self.source.with_adapters()

    @property
    def alt(self) -> str:
        """A description of the picture with its main numbers, for readers who cannot see it."""
        raise NotImplementedError

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the numbers: where a picture simplifies, where a figure comes from."""
        return ()

    def shell_command(self) -> str:
        """Return the command that computes this view again."""
        return shell_command(self.name, self.source, self.options)

    def python_code(self) -> str:
        """Return the lines of Python that compute this view again."""
        return python_code(self.name, self.source, self.options)

    def tables(self) -> dict[str, Table]:
        """Return the tables by name; `to_csv` returns the first one."""
        raise NotImplementedError

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name that are too large for a table, without those that the model lacks."""
        values = {name: getattr(self, name) for name in self.array_names}
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    def picture(self) -> tuple[Block, ...]:
        """Return the blocks that a terminal shows, top to bottom; by default the tables."""
        return tuple(self.tables().values())

    def to_csv(self, table: str | None = None) -> str:
        """Return one table (default: the first) as comma-separated values."""
        return self._table(table).to_csv()

    def to_json(self, *, arrays: bool = False) -> str:
        """Return everything as JSON, with `arrays` as nested lists if they are wanted; NaN becomes null."""
        facts: dict[str, object] = {
            "view": self.name,
            "title": self.title,
            "alt": self.alt,
            "model": self.source.model,
            "precision": self.source.precision,
            "run_precision": self.source.run_precision,
            "adapters": [{"path": place, "scale": scale} for place, scale in self.source.adapters],
            "text": self.source.text,
            "notes": self.notes,
            "command": self.shell_command(),
            "python": self.python_code(),
            "tables": {name: list(table) for name, table in self.tables().items()},
        }
        if arrays:
            facts["arrays"] = self.arrays()
        return json.dumps(_plain(facts), ensure_ascii=False, allow_nan=False)

    def to_pandas(self, table: str | None = None) -> pandas.DataFrame:
        """Return one table (default: the first) as a data frame; raises NotFound without pandas."""
        return self._table(table).to_pandas()

    def figure(self, theme: Literal["light", "dark"] = "light") -> Figure:
        """Return the picture as a matplotlib figure; raises NotFound without matplotlib."""
        return self.pictures.draw(self, theme)

    def save(self, path: str | PathLike[str], theme: Literal["light", "dark"] = "light") -> None:
        """Write .svg, .png, .html (one file, both themes), .csv, .json or .npz, by the ending of `path`."""
        self.pictures.save(self, path, theme)

    def widget(self) -> AnyWidget:
        """Return the figures as a widget for a notebook: pickers, sliders, labels (extra [notebook]).

        Raises NotFound without anywidget or the built script, BadInput for a view without figures.
        """
        return self.pictures.widget(self)

    def _table(self, name: str | None) -> Table:
        tables = self.tables()
        return next(iter(tables.values())) if name is None else tables[name]

    def _repr_html_(self) -> str:
        """Return the picture with its title and notes, or the tables without matplotlib."""
        return self.pictures.notebook_html(self)


def _plain(value: object) -> object:
    """Convert a value to JSON's types; NaN and infinity become null."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
