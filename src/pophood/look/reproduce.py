"""The command line and the Python code that compute a view again."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pophood.look.source import ViewSource

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = ParamSpec("P")
V = TypeVar("V", bound="DataclassInstance")  # a View, which imports this module
PRECISION = "f32"  # the default of `pophood look`
TOGETHER = frozenset({"sentences"})  # options that take several values at once instead of being repeated
Options = Mapping[str, Any]


def record_arguments(function: Callable[P, V]) -> Callable[P, V]:
    """Wrap a view function so that its view records the options of the call (`View.options`)."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def look(*args: P.args, **kwargs: P.kwargs) -> V:
        view = function(*args, **kwargs)
        options = {
            name: value
            for name, value in signature.bind(*args, **kwargs).arguments.items()
            if name != "lm"
            and not (name == "text" and isinstance(value, str))  # the view's source has them
            and value != signature.parameters[name].default
        }
        return replace(view, options=options)

    return look


def shell_command(name: str, source: ViewSource, options: Options) -> str:
    """Return the command of a view: `pophood look attention 'The capital' --layer 3 -m gpt2`."""
    words = ["pophood", "look", name]
    text = options.get("text", source.text)
    quoted: list[str] = []
    if isinstance(text, PurePath):
        words += ["--file", shlex.quote(str(text))]
    elif isinstance(text, str):
        quoted = [shlex.quote(text)] if text else []
    elif all(isinstance(one, int) for one in text):
        words += ["--ids", ",".join(map(str, text))]
    else:
        quoted, words = [shlex.quote(text[0])], [*words, *_flags("--compare", list(text[1:]))]
    for option, value in options.items():
        if option != "text":
            words += _flags("--" + option.replace("_", "-"), value)
    words += ["-m", shlex.quote(source.model), *number_options(source)]
    if quoted and not quoted[0].startswith(("-", "'-")):
        return " ".join([*words[:3], *quoted, *words[3:]])
    return " ".join([*words, *(["--", *quoted] if quoted else [])])  # a text that begins with a dash


def python_code(name: str, source: ViewSource, options: Options) -> str:
    """Return the lines of Python that compute a view."""
    text = options.get("text", source.text)
    more = f", adapters={list(source.adapters)!r}" if source.adapters else ""
    more += f", context={source.context}" if source.context is not None else ""
    texts = [f"Path({str(text)!r})" if isinstance(text, PurePath) else repr(text)] if text else []
    others = [f"{option}={value!r}" for option, value in options.items() if option != "text"]
    lines = ["from pathlib import Path", ""] if isinstance(text, PurePath) else []
    lines += [
        "import pophood",
        "from pophood import look",
        f'lm = pophood.load({source.model!r}, precision="{source.precision}"{more})',
        f"view = look.{name}({', '.join(['lm', *texts, *others])})",
    ]
    return "\n".join(lines)


def number_options(source: ViewSource) -> list[str]:
    """Return the options, besides `-m`, that a command needs to compute the same numbers."""
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
