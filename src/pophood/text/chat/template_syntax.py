"""Jinja's syntax for chat templates: one more tag, and the instrumentation that enforces the budget.

`Instrument` rewrites the parsed tree before it is compiled: every loop, text, comparison and slice is wrapped
in a filter of `sandbox.ChatEnvironment` whose name begins with "pophood_".
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from pophood.text.chat.template_budget import MOST_NODES, LimitReached

REFUSED_NODES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.EvalContextModifier)


class GenerationTag(Extension):
    """The tag `{% generation %}..{% endgeneration %}`, which marks the assistant's words and writes them."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Instrument(NodeTransformer):
    """Wraps the loops, texts, comparisons and slices of a parsed template in budget checks."""

    def __init__(self) -> None:
        self._nodes = 0

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise LimitReached(f"it has more than {MOST_NODES:,} parts")
        if isinstance(node, REFUSED_NODES):
            raise SecurityError(f"it uses {type(node).__name__.lower()}")
        node = super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.Expr):
            return _instrumented(node)
        if isinstance(node, nodes.For) and isinstance(node.iter, nodes.Expr):
            node.iter = _filtered(node.iter, "pophood_tick")
        elif isinstance(node, nodes.Output):
            node.nodes = list(map(_as_expression, node.nodes))
        return node


def _as_expression(node: nodes.Expr) -> nodes.Expr:
    """Turn a template's own text into a constant, so that it is charged like any other output."""
    return nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node


def _instrumented(node: nodes.Expr) -> nodes.Expr:
    if isinstance(node, nodes.Compare):
        node.expr = _filtered(node.expr, "pophood_tick")
    elif isinstance(node, nodes.Test):
        node.node = _filtered(node.node, "pophood_tick")
    elif isinstance(node, nodes.Concat):
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "pophood_join")
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        bounds = [bound or nodes.Const(None) for bound in (node.arg.start, node.arg.stop, node.arg.step)]
        return _filtered(node.node, "pophood_slice", bounds)
    return node


def _filtered(node: nodes.Expr, name: str, args: list[nodes.Expr] | None = None) -> nodes.Filter:
    return nodes.Filter(node, name, args or [], [], None, None, lineno=node.lineno)
