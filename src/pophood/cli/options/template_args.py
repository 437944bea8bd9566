"""`--template-arg NAME=VALUE`: variables that a person passes to the model's chat template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pophood.cli.options.shared import option
from pophood.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])

_PYTHON = {"True": "true", "False": "false", "None": "null"}


def template_arg_option(function: F) -> F:
    """Add --template-arg, repeatable, as `template_args`: texts as typed, for `template_variables`."""
    return option(
        "--template-arg",
        "template_args",
        multiple=True,
        metavar="NAME=VALUE",
        section="Text",
        help="Set a variable of the model's chat template, as in enable_thinking=false; VALUE is JSON, or "
        "else text; repeatable.",
    )(function)


def template_variables(typed: Iterable[str]) -> dict[str, Any]:
    """The variables of `--template-arg`; BadInput for what is not NAME=VALUE, or whose JSON is broken.

    >>> template_variables(["enable_thinking=false", "effort=high", "tools=[]"])
    {'enable_thinking': False, 'effort': 'high', 'tools': []}
    """
    variables: dict[str, Any] = {}
    for text in typed:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"--template-arg {text[:60]!r}: wanted NAME=VALUE, as in enable_thinking=false")
        if name in variables:
            raise BadInput(f"--template-arg sets {name!r} twice: give it once")
        variables[name] = _value(name, value)
    return variables


def _value(name: str, text: str) -> Any:
    if text in _PYTHON:
        raise BadInput(f"--template-arg {name}={text}: this would be text; JSON writes {_PYTHON[text]}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] in ("{", "[", '"'):
            raise BadInput(
                f"--template-arg {name}: the value is not JSON ({error}); check its quotes"
            ) from error
        return text
