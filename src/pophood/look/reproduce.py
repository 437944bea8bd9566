"""How a view came to be, in words that can be typed again: the command, and the lines of Python."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

from pophood.look.view import Source, View

P = ParamSpec("P")
V = TypeVar("V", bound=View)
PRECISION = "f32"  # the default of `pophood look`
TOGETHER = frozenset({"sentences"})  # one option with several values, instead of once for each


def remembered(function: Callable[P, V]) -> Callable[P, V]:
    """The same view function, whose view knows the options that were given (`View.options`)."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def look(*args: P.args, **kwargs: P.kwargs) -> V:
        view = function(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        options = {
            name: value
            for name, value in given.items()
            if name != "lm" and not (name == "text" and isinstance(value, str))  # the view's source has them
        }
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        options = {name: value for name, value in options.items() if value != defaults[name]}
        return replace(view, options=options)

    return look


def command_of(view: View) -> str:
    """The command that shows this view: `pophood look attention 'The capital' --layer 3 -m gpt2`."""
    words = ["pophood", "look", view.name]
    text = view.options.get("text", view.source.text)
    shown: list[str] = []
    if isinstance(text, PurePath):
        words += ["--file", shlex.quote(str(text))]
    elif isinstance(text, str):
        shown = [shlex.quote(text)] if text else []
    else:
        shown, words = [shlex.quote(text[0])], [*words, *_flags("--compare", list(text[1:]))]
    for name, value in view.options.items():
        if name != "text":
            words += _flags("--" + name.replace("_", "-"), value)
    words += ["-m", shlex.quote(view.source.model), *number_options(view.source)]
    if shown and not shown[0].startswith(("-", "'-")):
        return " ".join([*words[:3], *shown, *words[3:]])
    return " ".join([*words, *(["--", *shown] if shown else [])])  # a text that begins with a dash


def python_of(view: View) -> str:
    """The lines of Python that make this view."""
    text, source = view.options.get("text", view.source.text), view.source
    more = f", adapters={list(source.adapters)!r}" if source.adapters else ""
    more += f", context={source.context}" if source.context is not None else ""
    texts = [f"Path({str(text)!r})" if isinstance(text, PurePath) else repr(text)] if text else []
    options = [f"{name}={value!r}" for name, value in view.options.items() if name != "text"]
    lines = ["from pathlib import Path", ""] if isinstance(text, PurePath) else []
    lines += [
        "import pophood",
        "from pophood import look",
        f'lm = pophood.load({source.model!r}, precision="{source.precision}"{more})',
        f"view = look.{view.name}({', '.join(['lm', *texts, *options])})",
    ]
    return "\n".join(lines)


def number_options(source: Source) -> list[str]:
    """The options, beside `-m`, with which a command computes the same numbers."""
    words = []
    for place, scale in source.adapters:
        plain = scale == 1 and ":" not in place
        words += ["--adapter", shlex.quote(place if plain else f"{place}:{scale!r}")]
    words += ["--precision", source.precision] if source.precision != PRECISION else []
    words += ["--context", str(source.context)] if source.context is not None else []
    return words


def _flags(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if flag[2:] in TOGETHER:
        return [flag, *(shlex.quote(str(item)) for item in value)]
    if isinstance(value, list | tuple):
        items = [",".join(map(str, item)) if isinstance(item, list | tuple) else str(item) for item in value]
        return [word for item in items for word in (flag, shlex.quote(item))]
    return [flag, shlex.quote(str(value))]
