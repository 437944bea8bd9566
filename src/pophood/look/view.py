"""View: what one look gave: arrays and tables first, pictures last. Every view here is a child of it.

A child is a frozen dataclass whose fields are the numbers; it says what they are (`headline`, `alt`,
`notes`), lays them out as tables, and names what a terminal shows of them. The picture itself is drawn by
`look/figures/<name>.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pophood.look.blocks import Block
from pophood.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from pophood.model.lm import LM

PROMPT = "The capital of Spain is"  # the talk's, and every view's default


@dataclass(frozen=True, slots=True)
class Source:
    """Where the numbers come from: the model, its arithmetic, and the text as the model reads it."""

    model: str
    precision: str  # of these numbers
    run_precision: str  # that `run` takes
    text: str = ""
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()  # each token's own text, leading space kept
    adapters: tuple[tuple[str, float], ...] = ()  # places as they were named, each with its factor
    context: int | None = None  # tokens, where it is not the model's own

    @classmethod
    def of(cls, lm: LM, text: str | None = None) -> Source:
        """The source of a view of `text` in `lm`; None for a view of the model alone."""
        precision, own = lm.engine.precision, lm.config.n_positions
        # A stand-in that has only a configuration (look.architecture needs no more) has neither of these.
        context = getattr(lm.engine, "context", own)
        adapters = getattr(lm, "adapter_places", ())
        cut = cls(
            lm.name, precision, precision, adapters=adapters, context=None if context == own else context
        )
        if text is None:
            return cut
        spell = lm.bundle.tokenizer.token_text
        ids = tuple(lm.tokenize(text))
        return replace(cut, text=text, ids=ids, tokens=tuple(spell(id_) for id_ in ids))

    def with_adapters(self) -> str:
        """The adapters as an end of a sentence: `", with the adapter notes-lora x 0.5"`; "" for none."""
        if not self.adapters:
            return ""
        noun = "adapter" if len(self.adapters) == 1 else "adapters"
        return f", with the {noun} {' and '.join(self.adapter_names())}"

    def adapter_names(self) -> list[str]:
        """Each adapter with its factor, if that is not 1: `["notes-lora x 0.5"]`."""
        return [place if scale == 1 else f"{place} x {scale:g}" for place, scale in self.adapters]


@dataclass(frozen=True)
class View:
    """What one look gave. Children add the numbers as fields."""

    source: Source
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False, compare=False)  # given
    name: ClassVar[str]  # also the command: `pophood look NAME`

    @property
    def headline(self) -> str:
        """One line that states what is shown, without the adapters."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """One line that states what is shown, and with which adapters it was computed."""
        return self.headline + self.source.with_adapters()

    @property
    def alt(self) -> str:
        """The picture in words, with its main numbers, for who cannot see it."""
        raise NotImplementedError

    @property
    def notes(self) -> tuple[str, ...]:
        """What numbers do not say by themselves: where a picture simplifies, where a figure comes from."""
        return ()

    def tables(self) -> dict[str, Table]:
        """Name -> table; the first one is what `to_csv` gives."""
        raise NotImplementedError

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Name -> array, for what is too large for a table."""
        return {}

    def picture(self) -> tuple[Block, ...]:
        """What a terminal shows, top to bottom; by default the tables."""
        return tuple(self.tables().values())

    def to_csv(self, table: str | None = None) -> str:
        """One table (default: the first) as comma-separated values."""
        tables = self.tables()
        return tables[table if table is not None else next(iter(tables))].to_csv()

    def to_json(self, *, arrays: bool = False) -> str:
        """Everything as one object; `arrays` adds the large ones as nested lists. NaN becomes null."""
        from pophood.look.reproduce import command_of, python_of

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
            "command": command_of(self),
            "python": python_of(self),
            "tables": {name: list(table) for name, table in self.tables().items()},
        }
        if arrays:
            facts["arrays"] = self.arrays()
        return json.dumps(_plain(facts), ensure_ascii=False, allow_nan=False)

    def to_pandas(self, table: str | None = None) -> pandas.DataFrame:
        """One table (default: the first) as a data frame; raises NotHere without pandas."""
        tables = self.tables()
        return tables[table if table is not None else next(iter(tables))].to_pandas()

    def figure(self, theme: Literal["light", "dark"] = "light") -> Figure:
        """The picture, as a matplotlib figure; raises NotHere without matplotlib."""
        from pophood.look.figures import draw

        return draw(self, theme)

    def save(self, path: str | PathLike[str], theme: Literal["light", "dark"] = "light") -> None:
        """Write .svg, .png, .html (one file, both themes), .csv, .json or .npz, by the name's ending."""
        from pophood.look.figures import save

        save(self, path, theme)

    def _repr_html_(self) -> str:
        """A notebook shows the picture with its words, or the tables without matplotlib."""
        from pophood.look.figures import notebook_html

        return notebook_html(self)


def _plain(value: object) -> object:
    """The same in what JSON has; NaN and infinity, which it has not, become null."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
