"""Schemas over every keyword of Draft 2020-12: an answer is valid or cut, or the schema is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pophood
from pophood.errors import BadInput
from pophood.grammar import Grammar
from tests.grammar.schemas import KNOWN, UNKNOWN, Schema, made_schemas
from tests.serve.protocol.service import Service

DRAFT = jsonschema.Draft202012Validator
CLOSING = ('"', "}", "]", '",', '"}')  # what a random model would seldom write


@pytest.fixture(scope="module")
def service(folder: Any) -> Iterator[Service]:
    with Service(pophood.load(folder)) as service:
        yield service


def closings(lm: pophood.LM) -> dict[int, float]:
    """Return a bias to tokens that close a text, a list or an object, and to the end."""
    ids = {lm.bundle.tokenizer.id_of(text) for text in CLOSING} | set(lm.bundle.tokenizer.stops)
    return {id_: 5.0 for id_ in ids if id_ is not None}


def is_valid(text: str, schema: Schema) -> bool:
    checker = jsonschema.FormatChecker()
    return bool(DRAFT(schema, format_checker=checker).is_valid(json.loads(text)))


def answered(service: Service, schemas: list[tuple[str, Schema]]) -> tuple[int, int, int]:
    """Return how many schemas were accepted, answers cut, and schemas refused. Each answer is checked."""
    bias = {str(id_): value for id_, value in closings(service.lm).items()}
    body = {"prompt": "Once", "logit_bias": bias, "temperature": 1.3, "top_k": 0, "max_tokens": 1_000}
    accepted = cut = refused = 0
    for start in range(0, len(schemas), 16):
        part = schemas[start : start + 16]
        asked: list[tuple[str, Any]] = [
            ("/v1/completions", body | {"seed": start + n, "json_schema": schema})
            for n, (_, schema) in enumerate(part)
        ]
        for (name, schema), told in zip(part, service.ask_all(asked), strict=True):
            DRAFT.check_schema(schema)
            if told.status == 400:
                assert told.error["param"] == "json_schema", told.error
                refused += 1
                continue
            assert told.status == 200, (schema, told.body)
            assert name not in UNKNOWN, schema
            accepted += 1
            (choice,) = told.json["choices"]
            if choice["finish_reason"] == "length":
                cut += 1
            else:
                assert is_valid(choice["text"], schema), (schema, choice["text"])
    return accepted, cut, refused


def test_every_keyword_has_a_schema() -> None:
    names = [name for name, _ in made_schemas()]
    assert len(names) == 300 and len(KNOWN) + len(UNKNOWN) == 57
    assert min(names.count(name) for name in [*KNOWN, *UNKNOWN]) >= 3


def test_forty_schemas(service: Service) -> None:
    accepted, cut, refused = answered(service, made_schemas()[:40])
    assert accepted >= 28 and cut <= 2 and accepted + refused == 40


@pytest.mark.full
def test_three_hundred_schemas(service: Service) -> None:
    accepted, cut, refused = answered(service, made_schemas())
    print(f"{accepted} accepted, {cut} cut, {refused} refused")
    assert accepted >= 240 and cut <= 0.05 * accepted and accepted + refused == 300


LEAVES = st.one_of(
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-99, 99),
        st.integers(0, 99),
    ),
    st.builds(
        lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size},
        st.integers(0, 3),
        st.integers(0, 6),
    ),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["null", "boolean"]}]),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.none() | st.booleans() | st.text(max_size=4), min_size=1, max_size=4),
    ),
    st.builds(lambda value: {"const": value}, st.text(max_size=8) | st.integers(-(10**6), 10**6)),
    st.sampled_from(
        [{"type": "string", "pattern": "^[a-z]{2}$"}, {"type": "string", "format": "date"}, {"not": {}}]
    ),
)


def _object(properties: dict[str, Schema], optional: int, closed: bool) -> Schema:
    names = list(properties)
    return {
        "type": "object",
        "properties": properties,
        "required": names[optional:],
        "additionalProperties": False if closed else {"type": "null"},
        "maxProperties": len(names) + (not closed),
    }


def _deeper(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(
        st.builds(
            _object, st.dictionaries(st.text(max_size=5), inner, max_size=3), st.integers(0, 2), st.booleans()
        ),
        st.builds(
            lambda one, most: {"type": "array", "items": one, "maxItems": most}, inner, st.integers(0, 3)
        ),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda some: {"type": "array", "prefixItems": some, "items": False},
            st.lists(inner, min_size=1, max_size=2),
        ),
        st.builds(lambda one: {"$defs": {"x": one}, "allOf": [{"$ref": "#/$defs/x"}]}, inner),
    )


@settings(max_examples=60, deadline=None)
@given(st.recursive(LEAVES, _deeper, max_leaves=6), st.integers(0, 2**32))
def test_any_schema_is_followed_or_refused(lm: pophood.LM, schema: Schema, seed: int) -> None:
    try:
        grammar = Grammar.json_schema(schema)
        made = lm.generate(
            "Once",
            grammar=grammar,
            seed=seed,
            max_tokens=400,
            top_k=0,
            temperature=1.3,
            logit_bias=closings(lm),
        )
    except BadInput as error:
        assert "JSON schema" in str(error)
        return
    if made.tokens[-1].finish != "length":
        assert is_valid(made.completion, schema), (schema, made.completion)
