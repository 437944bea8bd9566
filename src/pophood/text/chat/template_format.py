"""Formatting in chat templates: `%`, `str.format`, and the filters `format` and `indent`.

Each gives the result of Python or Jinja, and carries the source of every value into it (`sourced.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2.exceptions import FilterArgumentError
from jinja2.sandbox import SandboxedFormatter

from pophood.text.chat.sourced import SourcedText, checked, join_texts, placed, sources_in, tainted
from pophood.text.chat.template_budget import LimitReached

_CONVERSION = re.compile(
    r"%(?:\((?P<key>[^)]*)\))?(?P<form>[#0\- +]*\d*(?:\.\d*)?[hlL]?)(?P<type>[diouxXeEfFgGcrsa%])"
)
_WIDE_FIELD = re.compile(r"\d{4}")  # a width or precision of 1000 or more


class BoundedFormatter(SandboxedFormatter):
    """str.format with the sandbox's attribute access, without wide padding, and with sources."""

    def __init__(self, environment: Any, charge: Callable[[object], None]) -> None:
        super().__init__(environment)
        self._charge = charge

    def vformat(self, format_string: str, args: Any, kwargs: Any) -> str:
        result = super().vformat(str.__str__(format_string), args, kwargs)
        inputs = (format_string, args, kwargs)
        if not sources_in(inputs):
            return result
        return checked(result, self._followed(format_string, args, kwargs), inputs)

    def _followed(self, form: str, args: Any, kwargs: Any) -> str:
        """Format field by field, with sources; "" for a format from a message or with nested fields."""
        pieces: list[str] = []
        for number, (literal, field, spec, conversion) in enumerate(self.parse(form)):
            pieces.append(literal)
            if field is None:
                continue
            if isinstance(form, SourcedText) or "{" in (spec or ""):
                return ""
            value, _ = self.get_field(field or str(number), args, kwargs)
            written = self.convert_field(value, conversion)
            written = tainted(written, sources_in(value)) if type(written) is str else written
            pieces.append(_filled(self.format_field, written, spec or "", written))
        return join_texts(pieces)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._charge(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        if _WIDE_FIELD.search(format_spec):
            raise LimitReached("it formats with a width of 1000 or more")
        return str(super().format_field(value, format_spec))


def percent(form: str, right: Any) -> str:
    """Compute `form % right` with sources; raises what Python raises."""
    result = str.__mod__(str.__str__(form), right)
    if not sources_in((form, right)):
        return result
    values = iter(right if isinstance(right, tuple) else (right,))
    pieces: list[str] = []
    end = 0
    for match in _CONVERSION.finditer(form):
        pieces.append(form[end : match.start()])
        end = match.end()
        if match["type"] == "%":
            pieces.append("%")
            continue
        value = right[match["key"]] if match["key"] is not None else next(values, "")
        pieces.append(_filled(str.__mod__, f"%{match['form']}{match['type']}", (value,), value))
    pieces.append(form[end:])
    return checked(result, join_texts(pieces), (form, right))


def _filled(write: Callable[[Any, Any], str], first: object, second: object, value: object) -> str:
    """Write one value as text by `write(first, second)`, with the sources of the value."""
    text = write(first, second)
    if isinstance(value, SourcedText):
        at = str.find(text, value)
        if at >= 0:
            return placed(str.__str__(text), value, at)
    return tainted(text, sources_in(value))


def format_filter(form: str, *args: Any, **kwargs: Any) -> str:
    """Apply Jinja's filter `format`: `form % args`."""
    if args and kwargs:
        raise FilterArgumentError("can't handle positional and keyword arguments at the same time")
    return percent(form, kwargs or args)


def indent_filter(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Apply Jinja's filter `indent`, built from operations that carry sources along."""
    indention = width if isinstance(width, str) else " " * width
    head, *rest = (text + "\n").splitlines()
    lines = [head, *(indention + line if line or blank else line for line in rest)]
    indented = join_texts(line if number == 0 else "\n" + line for number, line in enumerate(lines))
    return indention + indented if first else indented
