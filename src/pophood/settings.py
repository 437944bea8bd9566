"""Settings are declared once, as fields of a dataclass with a help text; options are generated from them.

    @dataclass(frozen=True)
    class PressSettings:
        copies: int = setting(1, "Copies to print")

A command line (`cli/options/from_settings.py`) lists `settings_of(PressSettings)`, so that an option and the
library's argument have the same name, type, default and help. Nothing here knows a command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

NUMBERS = (int, float)


def about(
    help_text: str,
    *,
    usual: str = "",
    flag: str = "",
    metavar: str = "",
    choices: tuple[str, ...] = (),
    method: str = "",
) -> dict[str, Any]:
    """Return the metadata of a field: a help text without its final full stop, and details for `settings_of`.

    `usual` describes a default that depends on other things, `flag` is the option's name if it differs from
    the field's, `metavar` names the value, `choices` are the only values (those of a Literal need not be
    given), and `method` is the only training method that uses the setting.
    """
    named = {"help": help_text, "usual": usual, "flag": flag, "metavar": metavar}
    return {**named, "choices": choices, "method": method}


def setting(default: Any, help_text: str, **details: Any) -> Any:
    """Declare a field with a default and a help text; the details are those of `about`."""
    return field(default=default, metadata=about(help_text, **details))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as an interface needs to know it."""

    name: str  # of the field
    kind: Any  # int, float, bool, Path (any number of them), or str, which may need parsing
    choices: tuple[str, ...]  # the only values, if not empty
    help: str
    default: str  # as text; "" if the help text says it, or there is none
    flag: str  # "last-blocks"
    metavar: str
    method: str


def settings_of(settings: type) -> Iterator[Setting]:
    """Yield the settings of a dataclass in the order of its fields; fields without a help text are skipped.

    >>> from pophood.sampling_settings import SamplingSettings
    >>> next(settings_of(SamplingSettings)).flag
    'temperature'
    """
    hints = get_type_hints(settings)
    for declared in fields(settings):
        details = declared.metadata
        if not details:
            continue
        kind = hints[declared.name]
        parts = [part for part in get_args(kind) if part is not NoneType]
        literal = tuple(parts) if get_origin(kind) is Literal else ()
        kind = str if literal else parts[0] if parts else kind
        known = declared.default if declared.default is not MISSING else None
        number = f"{known:g}" if kind in NUMBERS and isinstance(known, NUMBERS) else ""
        yield Setting(
            declared.name,
            kind,
            details["choices"] or literal,
            details["help"],
            details["usual"] or number,
            details["flag"] or declared.name.replace("_", "-"),
            details["metavar"] or ("N" if kind is int else "X"),
            details["method"],
        )
