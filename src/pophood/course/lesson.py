"""Lesson: runs the cells of one page on one loaded model and returns their outputs as data.

Every page starts with fresh variables (`lm`, `look`, `pophood`), so that each one can be taken alone. A page
that continues another starts with that page's variables, and runs its cells first if they have not run yet.
If a requirement of the page is missing, no cell runs, and the first output says what to install.
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

VALUE = "_shown_"  # the variable that a cell's last expression is assigned to
NAMES = "_names_of_pages"  # attribute of the model: page -> its variables, for pages that continue it


class CellFailed(PophoodError):
    """Raised when the code of a cell fails. Its message names the page and the line of the cell."""


@dataclass(frozen=True, slots=True)
class Output:
    """The output of one cell: its printed text, and the value of its last expression (None without one)."""

    cell: Cell
    printed: str
    value: object


class Lesson:
    """A page on a model: `Lesson(page, lm).outputs()` runs its cells in order."""

    def __init__(self, page: Page, lm: LM) -> None:
        import pophood
        from pophood import look

        self.page = page
        self.lm = lm
        self._names: dict[str, object] = {"lm": lm, "look": look, "pophood": pophood}
        self._ready = False
        self._unready: CellFailed | None = None  # the earlier page's error, raised for every cell
        self._missing: Missing | None = None

    def run(self, cell: Cell) -> Output:
        """Run one cell. Raises CellFailed; KeyboardInterrupt passes through."""
        reported = self._missing is not None
        if not self._ready:
            self._get_ready()
        if self._missing is not None:
            return Output(cell, "" if reported else f"{self._missing}\n", None)
        if self._unready is not None:
            raise self._unready
        output = self._run(cell)
        if self.page.kept and cell == [*self.page.cells("run", "run")][-1]:
            vars(self.lm)[NAMES] = {self.page.path: dict(self._names)}
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
            need(self.page.needs, self.page.words)
            self._take_over()
        except Missing as missing:
            self._missing = missing
        except CellFailed as error:
            self._unready = error
        self._ready = True

    def _take_over(self) -> None:
        """Copy the variables of the page that this one continues, running that page first if necessary."""
        earlier = self.page.earlier
        if earlier is None:
            return
        if earlier.path not in vars(self.lm).get(NAMES, {}):
            Lesson(earlier, self.lm).outputs()
        self._names |= vars(self.lm)[NAMES][earlier.path]

    def outputs(self) -> list[Output]:
        """Run every cell of the section `run`, in order."""
        return [self.run(cell) for cell in self.page.cells("run", "run")]

    def say(self, cell: Cell) -> str:
        """Return the text of a say cell, computed from the model. Raises CellFailed like `run`."""
        output = self.run(cell)
        return output.printed.strip() if output.value is None else str(output.value)

    def answer(self) -> object:
        """Return the correct answer, computed from the model.

        Raises Missing if the page's requirement is not installed.
        """
        value = self.run(self.page.check).value
        if self._missing is not None:
            raise self._missing
        return value

    def check(self, given: object) -> Verdict:
        """Compare the reader's guess with the correct answer."""
        try:
            return check(given, self.answer(), self.page.words)
        except Missing:
            return Verdict("missing", "", None, self.page.words)

    def applying(self, cells: tuple[Cell, ...]) -> list[Cell]:
        """Return the cells that apply to this model."""
        return [cell for cell in cells if cell.applies(self.lm.config)]


def compiled(source: str, place: str) -> CodeType:
    """Compile a cell's code so that the value of its last expression is assigned to VALUE."""
    tree = ast.parse(source, place)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        target = ast.Name(VALUE, ast.Store())
        tree.body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
    return compile(ast.fix_missing_locations(tree), place, "exec")


def split_last(source: str) -> tuple[str, str]:
    """Split a cell's code into the lines before its last expression, and that expression without its comment.

    >>> split_last("5 + 1  # six")
    ('', '5 + 1')
    """
    last = ast.parse(source).body[-1]
    before = "\n".join(source.split("\n")[: last.lineno - 1])
    return before, ast.get_source_segment(source, last) or ""


class _Interpreter(code.InteractiveInterpreter):
    """Python's own interpreter for code in a namespace, but with errors raised instead of printed."""

    def showtraceback(self) -> NoReturn:
        raise  # noqa: PLE0704  (called inside the exception handler)
