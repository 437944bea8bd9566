"""Viewer: views of a model in its own process, between the steps of the worker. (small: one class)

The engine that writes answers is looked into, at the precision that it computes with. For another precision
a second engine is loaded from the same files and kept until a third one is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pophood.adapters.adapter import Adapter
from pophood.adapters.open import open_adapter
from pophood.errors import BadFile, BadInput, NotFound, OutOfMemory, Unsupported
from pophood.model.lm import LM
from pophood.phrases import speaking
from pophood.serve.errands import Between
from pophood.serve.messages import CourseStep, Errand, ShowView

if TYPE_CHECKING:
    from pophood.course.plain import Lessons


class Viewer:
    """Computes views of a model.

    `adapters` are those that requests can name, shared with the worker; `places` are their folders.
    """

    def __init__(self, lm: LM, adapters: dict[str, Adapter], places: dict[str, str]) -> None:
        self._lm, self._adapters, self._places = lm, adapters, places
        self._other: LM | None = None
        self._lessons: Lessons | None = None  # once a page was begun

    def __call__(self, look: Errand, between: Between) -> dict[str, Any]:
        """Return a view as plain data. Raises BadInput for what cannot be shown, EngineError.

        `between` is called before each pass, and for each tensor of a model that is loaded. A cell of the
        course is run. An adapter is opened, so that requests can name it from now on, in the place of one
        with its name.
        """
        try:
            if isinstance(look, ShowView):
                with speaking(look.language):
                    return self._answer(look, between)
            if isinstance(look, CourseStep):
                return self._step(look, between)
            self._adapters[look.name] = open_adapter(look.place, self._lm.config)
            self._places[look.name] = look.place
            return {}
        except (Unsupported, OutOfMemory, NotFound, BadFile) as error:  # none of them is the server's fault
            raise BadInput(str(error)) from error

    def _step(self, step: CourseStep, between: Between) -> dict[str, Any]:
        from pophood.course.plain import Lessons

        if self._lessons is None:
            self._lessons = Lessons(self._at("f32", between))  # every bit as published
        with self._lessons.lm.engine.turns.shared(between):
            if step.guess is not None:
                return self._lessons.check(step.language, step.page, step.guess)
            return self._lessons.run(step.language, step.page, step.section, step.index)

    def _answer(self, look: ShowView, between: Between) -> dict[str, Any]:
        lm = self._at(look.precision, between)
        with lm.engine.turns.shared(between):
            return self._view(lm, look)

    def _view(self, lm: LM, look: ShowView) -> dict[str, Any]:
        from pophood.look.answer import answer

        if not look.adapters:
            return answer(lm, look.name, look.text, look.options)
        for name, _ in look.adapters:
            if name not in self._adapters:
                there = ", ".join(self._adapters) or "none"
                raise BadInput(f"no adapter is called {name[:80]!r}; there is {there}")
        lm.use_adapters([(self._adapters[name], scale) for name, scale in look.adapters])
        # A command needs the place of an adapter, a title has the name that requests give it.
        lm.adapter_places = tuple((self._places[name], scale) for name, scale in look.adapters)
        lm.adapter_titles = tuple(name for name, _ in look.adapters)
        try:
            return answer(lm, look.name, look.text, look.options)
        finally:
            lm.use_adapters([])  # other requests name theirs themselves

    def _at(self, precision: str | None, between: Between) -> LM:
        """Return the model at a precision. Raises OutOfMemory."""
        if precision in (None, self._lm.engine.precision):
            return self._lm
        if self._other is None or self._other.engine.precision != precision:
            self._other = None  # first, since there may be room for one alone
            self._other = self._lm.at(str(precision), lambda *_: between())
        return self._other
