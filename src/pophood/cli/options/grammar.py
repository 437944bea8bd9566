"""Options for the form of a text: --json-object, --json-schema, --grammar, --regex."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.options.sampling import SamplingArgs
from pophood.cli.options.shared import F, text_option, with_options
from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.grammar import Grammar

GIVEN = ("json_schema", "grammar_file", "regex")


def grammar_options(function: F) -> F:
    """Add the options of a form, which becomes one of the limits of `sampling`."""

    @functools.wraps(function)
    def command(*args: Any, sampling: SamplingArgs, **values: Any) -> Any:
        grammar = _grammar(values.pop("json_object"), *(values.pop(name) for name in GIVEN))
        if grammar is not None:
            sampling = replace(sampling, limits=sampling.limits | {"grammar": grammar})
        return function(*args, sampling=sampling, **values)

    options = [
        text_option("--json-object", is_flag=True, help="Write a JSON object."),
        text_option(
            "--json-schema",
            metavar="FILE|JSON",
            help="Write JSON that matches a schema, or the schema in a file.",
        ),
        text_option(
            "--grammar",
            "grammar_file",
            type=click.Path(exists=True, dir_okay=False),
            help="Write what a grammar in GBNF or Lark's notation allows.",
        ),
        text_option("--regex", metavar="R", help="Write what a regular expression matches as a whole."),
    ]
    decorated: F = with_options(command, options)
    return decorated


def _grammar(anything: bool, schema: str | None, file: str | None, regex: str | None) -> Grammar | None:
    """Return the form that was asked for. Raises UsageError for two, BadInput for a wrong one."""
    given = {"--json-object": anything or None, "--json-schema": schema, "--grammar": file, "--regex": regex}
    names = [name for name, value in given.items() if value is not None]
    if not names:
        return None
    if len(names) > 1:
        raise click.UsageError(f"{names[0]} and {names[1]} both say which form the text has: give one")
    from pophood.grammar import Grammar  # late: --help needs none of it

    if anything:
        return Grammar.json_object()
    if schema is not None:
        inline = schema.lstrip()[:1] == "{" or schema.strip() in ("true", "false")
        return Grammar.json_schema(schema if inline else _read(schema))
    if file is not None:
        return Grammar.of_text(_read(file))
    return Grammar.regex(str(regex))


def _read(place: str) -> str:
    try:
        return Path(place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadInput(f"{place}: cannot be read: {why}") from error
