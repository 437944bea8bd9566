"""Generates options from the settings of the library, so that the two cannot differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import click

from pophood.cli.options.shared import Decorator, option
from pophood.settings import Setting, settings_of


def numbers(text: str) -> tuple[int, ...]:
    """Parse whole numbers with commas between them; any other text is a usage error.

    >>> numbers("1,2,4")
    (1, 2, 4)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers, as in 1,2,4.") from None


def setting_options(
    settings: type,
    section: str,
    *,
    prefix: str = "",
    default: str = "(default: {})",
    short: Mapping[str, str] | None = None,
) -> dict[str, Decorator]:
    """Return for each setting of a dataclass the decorator that adds its option, by the field's name.

    The parameter of a command is called `prefix` and the field's name, and is None if the option was not
    typed. `default` is the form in which the help text tells the default. `short` has
    the short options by field.
    """
    return {
        one.name: option(
            *filter(None, [(short or {}).get(one.name), _flag(one), f"{prefix}{one.name}"]),
            section=section,
            help=_help(one, default),
            **_type(one),
        )
        for one in settings_of(settings)
    }


def typed_settings(settings: type, values: dict[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Remove a dataclass's options from a command's parameters, and return those that were typed."""
    taken = {one.name: values.pop(f"{prefix}{one.name}", None) for one in settings_of(settings)}
    return {name: value for name, value in taken.items() if value not in (None, ())}


def flags_of(settings: type, names: Iterable[str] | Mapping[str, Any]) -> dict[str, Setting]:
    """Return the settings of some fields by their options: `--last-blocks` for `last_blocks`."""
    return {_flag(one): one for one in settings_of(settings) if one.name in names}


def joined(flags: Sequence[str], word: str = "and") -> str:
    """Join options for a sentence.

    >>> joined(["--rank", "--alpha", "--rslora"])
    '--rank, --alpha and --rslora'
    """
    return f" {word} ".join([", ".join(flags[:-1]), flags[-1]] if flags[1:] else flags)


def _flag(one: Setting) -> str:
    return "--" + one.flag.replace("/", "/--")


def _help(one: Setting, default: str) -> str:
    return f"{one.help} {default.format(one.default)}." if one.default else f"{one.help}."


def _type(one: Setting) -> dict[str, Any]:
    """Return the attributes of the option that depend on the type of its value."""
    if one.kind is bool:
        return {"is_flag": True, "default": None}
    if one.choices:
        return {"type": click.Choice(one.choices)}
    if get_origin(one.kind) is tuple:
        return {"type": numbers, "metavar": one.metavar}
    if one.kind is Path:
        return {"type": click.Path(exists=True, path_type=Path), "metavar": one.metavar, "multiple": True}
    return {"type": one.kind, "metavar": one.metavar}
