"""The form that a request wants its answer to have: OpenAI's field, llama.cpp's and vLLM's, one at a time.

It is enforced whether a schema says `strict` or not, and compiled before the request is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pophood.errors import BadInput, PophoodError, short
from pophood.grammar import Grammar
from pophood.openai.errors import invalid, of_pophood
from pophood.openai.model import ServedModel
from pophood.openai.requests import GeneratingFields

FORMATS = ("text", "json_object", "json_schema")
Made = tuple[str, Callable[[], Grammar | None]]  # the field, and what makes its grammar


def grammar_of(request: GeneratingFields, served: ServedModel) -> Grammar | None:
    """Return the grammar of a request, compiled for the model. Raises ApiError that names the field."""
    found: dict[str, Grammar] = {}
    for name, make in _asked(request):
        try:
            grammar = make()
            if grammar is not None:
                found[name] = grammar
                served.compile(grammar)
        except PophoodError as error:
            raise of_pophood(error, name) from error
    if len(found) > 1:
        one, other = list(found)[:2]
        raise invalid(f"{one} and {other} both say which form the answer has: give one", other)
    return next(iter(found.values()), None)


def _asked(request: GeneratingFields) -> Iterator[Made]:
    """Yield the fields that were given."""
    if (form := request.response_format) is not None:
        yield "response_format", partial(_of_format, form)
    for name in ("json_schema", "guided_json"):
        if (schema := getattr(request, name)) is not None:
            yield name, partial(Grammar.json_schema, schema)
    for name in ("regex", "guided_regex"):
        if expression := getattr(request, name):
            yield name, partial(Grammar.regex, expression)
    for name in ("grammar", "guided_grammar"):
        if text := getattr(request, name):
            yield name, partial(Grammar.of_text, text)
    if (choice := request.guided_choice) is not None:
        yield "guided_choice", partial(Grammar.choice, choice)
    if (outputs := request.structured_outputs) is not None:
        yield "structured_outputs", partial(_of_outputs, outputs)


def _of_format(value: Any) -> Grammar | None:
    """Return the grammar of OpenAI's `response_format`, or of llama.cpp's, whose object may have a schema."""
    if not isinstance(value, dict) or value.get("type") not in FORMATS:
        got = short(value.get("type") if isinstance(value, dict) else value)
        raise BadInput(f"response_format: got {got}; wanted an object whose type is {', '.join(FORMATS)}")
    if value["type"] == "text":
        return None
    if value["type"] == "json_object":
        schema = value.get("schema")
        return Grammar.json_object() if schema is None else Grammar.json_schema(schema)
    described = value.get("json_schema")
    if not isinstance(described, dict) or described.get("schema") is None:
        raise BadInput("response_format: wanted json_schema: {name, schema}")
    return Grammar.json_schema(described["schema"])


def _of_outputs(value: Mapping[str, Any]) -> Grammar | None:
    """Return the grammar of vLLM's `structured_outputs`."""
    makers: Mapping[str, Callable[[Any], Grammar]] = {
        "json": Grammar.json_schema,
        "regex": Grammar.regex,
        "choice": Grammar.choice,
        "grammar": Grammar.of_text,
        "json_object": lambda _: Grammar.json_object(),
    }
    given = {name: one for name, one in value.items() if one is not None and one is not False}
    if not given:
        return None
    if len(given) > 1 or not given.keys() <= makers.keys():
        raise BadInput(f"structured_outputs: got {short(list(given))}; wanted one of {', '.join(makers)}")
    ((name, one),) = given.items()
    return makers[name](one)
