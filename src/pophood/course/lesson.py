"""Lesson: one page on one loaded model: its cells run, their outputs as data. Prints nothing itself.

Every page starts with fresh names (`lm`, `look`, `pophood`), so that each one can be taken alone; one that
continues another starts with that one's, whose cells are run first unless they were already. Where something
that the page needs is missing, nothing of it runs, and the first output says what to install.
"""

from __future__ import annotations

import ast
import code
import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from pophood.course.answers import Verdict, check
from pophood.course.needs import Missing, need
from pophood.course.pages import Cell, Page
from pophood.errors import PophoodError

if TYPE_CHECKING:
    from types import CodeType

    from pophood.model.lm import LM

VALUE = "_shown_"  # the name that takes a cell's last value
KEPT = "_names_of_pages"  # page -> its names, for pages that continue it; with the model, and gone when it is


class CellFailed(PophoodError):
    """A cell raised: names the page and the cell; the cause is chained."""


@dataclass(frozen=True, slots=True)
class Output:
    """What one cell gave: what it printed, and the value of its last expression (None: none)."""

    cell: Cell
    printed: str
    value: object


class Lesson:
    """A page with a model: `Lesson(page, lm).outputs()` runs its cells in order."""

    def __init__(self, page: Page, lm: LM) -> None:
        import pophood
        from pophood import look

        self.page = page
        self.lm = lm
        self._names: dict[str, object] = {"lm": lm, "look": look, "pophood": pophood}
        self._ready = False
        self._unready: CellFailed | None = None  # the earlier page failed: it is not tried for every cell
        self._missing: Missing | None = None

    def run(self, cell: Cell) -> Output:
        """Run one cell; raises CellFailed, or what Ctrl-C raises."""
        said = self._missing is not None
        if not self._ready:
            self._get_ready()
        if self._missing is not None:
            return Output(cell, "" if said else f"{self._missing}\n", None)
        if self._unready is not None:
            raise self._unready
        output = self._run(cell)
        if self.page.kept and cell == [*self.page.cells("run", "run")][-1]:
            vars(self.lm)[KEPT] = {self.page.path: dict(self._names)}
        return output

    def _run(self, cell: Cell) -> Output:
        place = f"{self.page.path}:{cell.line}"
        self._names.pop(VALUE, None)
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            try:
                _Interpreter(self._names).runcode(compiled(cell.text, place))
            except Exception as error:
                raise CellFailed(f"{place}: {type(error).__name__}: {error}") from error
        return Output(cell, stream.getvalue(), self._names.get(VALUE))

    def _get_ready(self) -> None:
        try:
            need(self.page.needs)
            self._take_over()
        except Missing as missing:
            self._missing = missing
        except CellFailed as error:
            self._unready = error
        self._ready = True

    def _take_over(self) -> None:
        """The names of the page that this one continues."""
        earlier = self.page.earlier
        if earlier is None:
            return
        kept = vars(self.lm).get(KEPT, {})
        if earlier.path not in kept:
            Lesson(earlier, self.lm).outputs()
            kept = vars(self.lm)[KEPT]
        self._names |= kept[earlier.path]

    def outputs(self) -> list[Output]:
        """Run every cell of the section `run`, in order."""
        return [self.run(cell) for cell in self.page.cells("run", "run")]

    def say(self, cell: Cell) -> str:
        """The text of a say cell, computed from the model; raises CellFailed as `run` does."""
        output = self.run(cell)
        return output.printed.strip() if output.value is None else str(output.value)

    def answer(self) -> object:
        """The right answer, computed from the model; raises Missing where the page needs what is not here."""
        value = self.run(self.page.check).value
        if self._missing is not None:
            raise self._missing
        return value

    def check(self, given: object) -> Verdict:
        """The reader's guess beside the right answer."""
        try:
            return check(given, self.answer())
        except Missing:
            return Verdict("missing", "", None)

    def applying(self, cells: tuple[Cell, ...]) -> list[Cell]:
        """Those cells that are about models such as this one."""
        return [cell for cell in cells if cell.applies(self.lm.config)]


def compiled(source: str, place: str) -> CodeType:
    """A cell's code, the value of a last expression kept under VALUE."""
    tree = ast.parse(source, place)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        target = ast.Name(VALUE, ast.Store())
        tree.body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
    return compile(ast.fix_missing_locations(tree), place, "exec")


def split_last(source: str) -> tuple[str, str]:
    """A cell's code as (what comes first, its last expression, without the comment behind it).

    >>> split_last("5 + 1  # six")
    ('', '5 + 1')
    """
    last = ast.parse(source).body[-1]
    before = "\n".join(source.split("\n")[: last.lineno - 1])
    return before, ast.get_source_segment(source, last) or ""


class _Interpreter(code.InteractiveInterpreter):
    """Python's own way to run code in a namespace, with errors raised instead of printed."""

    def showtraceback(self) -> NoReturn:
        raise  # noqa: PLE0704  (called inside the handler of what the code raised)
