"""Viewer: views of a model in its own process, between two steps of the worker. (small: one class)

The engine that writes answers is looked into, at the precision that it computes with. For another precision
a second engine is loaded from the same files and kept until a third one is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pophood.adapters.adapter import Adapter
from pophood.errors import BadInput, NotFound, OutOfMemory, Unsupported
from pophood.model.lm import LM
from pophood.serve.messages import ShowView


class Viewer:
    """Computes views of a model. `adapters` are those that a view can name; `places` are their folders."""

    def __init__(self, lm: LM, adapters: Mapping[str, Adapter], places: Mapping[str, str]) -> None:
        self._lm, self._adapters, self._places = lm, adapters, places
        self._other: LM | None = None

    def __call__(self, look: ShowView) -> dict[str, Any]:
        """Return a view as plain data. Raises BadInput for what cannot be shown, EngineError."""
        try:
            return self._answer(look)
        except (Unsupported, OutOfMemory, NotFound) as error:  # none of them is the server's fault
            raise BadInput(str(error)) from error

    def _answer(self, look: ShowView) -> dict[str, Any]:
        from pophood.look.answer import answer

        lm = self._at(look.precision)
        if not look.adapters:
            return answer(lm, look.name, look.text, look.options)
        for name, _ in look.adapters:
            if name not in self._adapters:
                there = ", ".join(self._adapters) or "none"
                raise BadInput(f"no adapter is called {name[:80]!r}; there is {there}")
        lm.use_adapters([(self._adapters[name], scale) for name, scale in look.adapters])
        lm.adapter_places = tuple((self._places[name], scale) for name, scale in look.adapters)
        try:
            return answer(lm, look.name, look.text, look.options)
        finally:
            lm.use_adapters([])  # other requests name theirs themselves

    def _at(self, precision: str | None) -> LM:
        """Return the model at a precision. Raises OutOfMemory."""
        if precision in (None, self._lm.engine.precision):
            return self._lm
        if self._other is None or self._other.engine.precision != precision:
            self._other = None  # first, since there may be room for one alone
            self._other = self._lm.at(str(precision))
        return self._other
