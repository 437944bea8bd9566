"""Small changes to Python code that are plausible mistakes: in operators, constants, conditions and calls.

Left out: texts (their words are not behaviour), docstrings, annotations, decorators, the arguments of
exceptions, `if TYPE_CHECKING`, and what `__all__` lists.
"""

from __future__ import annotations

import ast

from tests.mutants.mutant import Mutant

COMPARE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
}
SIBLINGS = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Points(ast.NodeVisitor):
    """Collects the mutants of one file."""

    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.source = source
        self.found: list[Mutant] = []
        lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))
        self._lines = lines
        self.visit(ast.parse(source))

    # ---- places ----

    def _offset(self, line: int, column: int) -> int:
        """`column` counts bytes of UTF-8, as ast's does."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def _span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _add(self, begin: int, end: int, after: str, kind: str) -> None:
        before = self.source[begin:end]
        self.found.append(Mutant.at(self.file, self.source, begin, before, after, kind))

    def _between(self, left: ast.expr, right: ast.expr, before: str, after: str, kind: str) -> None:
        """Replace the operator between two operands."""
        begin, end = self._span(left)[1], self._span(right)[0]
        at = self.source.find(before, begin, end)
        if at >= 0 and "#" not in self.source[begin:end]:
            self._add(at, at + len(before), after, kind)

    # ---- kinds ----

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            self._between(left, right, *COMPARE[type(operator)], "operator")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = any(
            isinstance(side, ast.JoinedStr)
            or (isinstance(side, ast.Constant) and isinstance(side.value, str))
            for side in (node.left, node.right)
        )
        if type(node.op) in ARITHMETIC and not text:
            self._between(node.left, node.right, *ARITHMETIC[type(node.op)], "operator")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in ARITHMETIC:
            before, after = ARITHMETIC[type(node.op)]
            self._between(node.target, node.value, f"{before}=", f"{after}=", "operator")
        self.visit(node.value)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        before, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, before, after, "operator")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        begin, _ = self._span(node)
        if isinstance(node.op, ast.Not | ast.USub):
            self._add(begin, self._span(node.operand)[0], "", "operator")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add(*self._span(node), str(not value), "constant")
        elif isinstance(value, int):
            self._add(*self._span(node), str(value + 1), "constant")
        elif isinstance(value, float):
            self._add(*self._span(node), repr(2 * value if value else 1.0), "constant")

    def _condition(self, test: ast.expr) -> None:
        begin, end = self._span(test)
        # Parentheses or a blank on both sides: `if(x)` does not occur, and `x if(y)else z` neither.
        self._add(begin, end, f"not ({self.source[begin:end]})", "condition")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._condition(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self._condition(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node.value, ast.Call):
            self._add(*self._span(node), "pass", "call")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in SIBLINGS:
            self._add(*self._span(node.func), SIBLINGS[node.func.id], "call")
        for keyword in node.keywords:
            if keyword.arg is not None and (len(node.args) + len(node.keywords)) > 1:
                begin, end = self._span(keyword)
                rest = self.source[end:]
                comma = len(rest) - len(rest.lstrip(", \n"))
                self._add(begin, end + comma if rest.lstrip().startswith(",") else end, "", "call")
        self.generic_visit(node)

    # ---- what is left out ----

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return

    def visit_Raise(self, node: ast.Raise) -> None:
        return

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]:
            self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)


def python_mutants(file: str, source: str) -> list[Mutant]:
    """Every mutant of a file; a few do not compile."""
    return Points(file, source).found


def compiles(source: str) -> bool:
    """Return whether a file is Python at all."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
