"""300 JSON schemas, spread over every keyword of Draft 2020-12, drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

Schema = dict[str, Any]
Maker = Callable[[random.Random], Schema]
WORDS = ("name", "size", "tag", "a", "b c", "naïve", '"', "日本")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
KNOWN_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
OTHER_FORMATS = ("iri", "json-pointer", "idn-email")
PATTERNS = ("^[a-z]{1,5}$", "^(ab|cd)+x$", "^[0-9]{3}-[0-9]{2}$", "^a", r"^\d{1,4}\.\d$", '^[^"]{2}$')


def number(draw: random.Random) -> Schema:
    return {"type": "integer", "minimum": draw.randint(-50, 0), "maximum": draw.randint(1, 500)}


def text(draw: random.Random) -> Schema:
    return {"type": "string", "maxLength": draw.randint(1, 8)}


def leaf(draw: random.Random) -> Schema:
    fixed: Schema = draw.choice(
        [{"type": "boolean"}, {"type": "null"}, {"enum": [1, "x", None]}, {"const": "c"}]
    )
    return draw.choice([number(draw), text(draw), fixed])


def record(draw: random.Random, **more: Any) -> Schema:
    """Return the schema of a closed object, whose properties are all required."""
    names = draw.sample(WORDS, draw.randint(1, 3))
    return {
        "type": "object",
        "properties": {name: leaf(draw) for name in names},
        "required": names,
        "additionalProperties": False,
        **more,
    }


def row(draw: random.Random, **more: Any) -> Schema:
    return {"type": "array", "items": leaf(draw), "maxItems": draw.randint(1, 4), **more}


def closed(**properties: Schema) -> Schema:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def one_of(draw: random.Random) -> Schema:
    kinds = [closed(kind={"const": name}, value=leaf(draw)) for name in ("left", "right")]
    apart: list[Schema] = [{"type": "null"}, text(draw), number(draw)]
    return {"oneOf": draw.choice([kinds, apart, apart[:2]])}


def referred(draw: random.Random) -> Schema:
    return {"$defs": {"x": leaf(draw)}, **closed(first={"$ref": "#/$defs/x"}, second={"$ref": "#/$defs/x"})}


def tree(draw: random.Random) -> Schema:
    node = closed(value=leaf(draw), next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]})
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def anchored(draw: random.Random) -> Schema:
    return {"$defs": {"x": {"$anchor": "here", **leaf(draw)}}, **closed(one={"$ref": "#here"})}


def identified(draw: random.Random) -> Schema:
    inner = {"$id": "inner", **leaf(draw)}
    return {"$id": "https://example.org/outer", "$defs": {"x": inner}, **closed(one={"$ref": "inner"})}


def all_of(draw: random.Random) -> Schema:
    return {"allOf": [{"type": "integer", "minimum": draw.randint(0, 9)}, {"maximum": draw.randint(10, 99)}]}


def prefixed(draw: random.Random) -> Schema:
    rest: Schema = draw.choice([{"items": False}, {"items": leaf(draw), "maxItems": 5}])
    return {"type": "array", "prefixItems": [leaf(draw), leaf(draw)], "minItems": 2, **rest}


def open_object(draw: random.Random) -> Schema:
    return {"type": "object", "additionalProperties": leaf(draw), "maxProperties": draw.randint(1, 3)}


def patterned(draw: random.Random) -> Schema:
    names = {"^a[a-z]$": number(draw), "^b[0-9]$": {"type": "boolean"}}
    return {"type": "object", "patternProperties": names, "additionalProperties": False, "maxProperties": 3}


def noted(name: str, value: Any) -> Maker:
    return lambda draw: draw.choice([leaf, record])(draw) | {name: value}


# Keywords that llguidance knows, each with what makes a schema that uses it.
KNOWN: Mapping[str, Maker] = {
    "$schema": noted("$schema", DIALECT),
    "$id": identified,
    "$ref": lambda draw: draw.choice([referred, tree])(draw),
    "$defs": referred,
    "$anchor": anchored,
    "$vocabulary": noted("$vocabulary", {"https://json-schema.org/draft/2020-12/vocab/core": True}),
    "$comment": noted("$comment", "a remark"),
    "allOf": all_of,
    "anyOf": lambda draw: {"anyOf": [leaf(draw), record(draw)]},
    "oneOf": one_of,
    "prefixItems": prefixed,
    "items": row,
    "properties": record,
    "patternProperties": patterned,
    "additionalProperties": open_object,
    "type": lambda draw: {"type": draw.sample(["null", "boolean", "integer", "number"], 2)},
    "enum": lambda draw: {"enum": draw.sample([1, "x", None, [1, 2], {"k": "v"}, "é\n", 2.5, True], 4)},
    "const": lambda draw: {"const": draw.choice([{"k": [1, None]}, "a longer constant, \u2028 too", -3, []])},
    "multipleOf": lambda draw: number(draw) | {"multipleOf": draw.choice([2, 3, 5, 7])},
    "maximum": lambda draw: {"type": "number", "minimum": -9, "maximum": draw.choice([3.5, 10, 0.25])},
    "exclusiveMaximum": lambda draw: {
        "type": "integer",
        "minimum": 0,
        "exclusiveMaximum": draw.randint(1, 99),
    },
    "minimum": lambda draw: {"type": "integer", "minimum": draw.randint(-99, 99), "maximum": 10_000},
    "exclusiveMinimum": lambda draw: {
        "type": "number",
        "exclusiveMinimum": draw.randint(-5, 5),
        "maximum": 77,
    },
    "maxLength": text,
    "minLength": lambda draw: {"type": "string", "minLength": draw.randint(1, 5), "maxLength": 9},
    "pattern": lambda draw: {"type": "string", "pattern": draw.choice(PATTERNS), "maxLength": 30},
    "maxItems": row,
    "minItems": lambda draw: row(draw) | {"minItems": 1},
    "maxProperties": open_object,
    "minProperties": lambda draw: open_object(draw) | {"minProperties": 1},
    "required": lambda draw: (
        closed(a=leaf(draw), b=leaf(draw)) | {"required": draw.choice([["b"], ["a", "b"]])}
    ),
    "format": lambda draw: {"type": "string", "format": draw.choice(KNOWN_FORMATS)},
    "contentEncoding": lambda draw: text(draw) | {"contentEncoding": "base64"},
    "contentMediaType": lambda draw: text(draw) | {"contentMediaType": "application/json"},
    "contentSchema": lambda draw: (
        text(draw) | {"contentMediaType": "application/json", "contentSchema": number(draw)}
    ),
    "title": noted("title", "A title"),
    "description": noted("description", "What it is"),
    "default": noted("default", 1),
    "deprecated": noted("deprecated", True),
    "readOnly": noted("readOnly", True),
    "writeOnly": noted("writeOnly", False),
    "examples": noted("examples", [1, 2]),
}
# Keywords that it does not know: a schema with one is refused.
UNKNOWN: Mapping[str, Maker] = {
    "$dynamicRef": lambda draw: {"$defs": {"x": {"$dynamicAnchor": "y", **leaf(draw)}}, "$dynamicRef": "#y"},
    "$dynamicAnchor": lambda draw: {"$dynamicAnchor": "y", **record(draw)},
    "not": lambda draw: number(draw) | {"not": {"const": draw.randint(0, 9)}},
    "if": lambda draw: {"if": {"type": "null"}, **number(draw)},
    "then": lambda draw: {"if": {"type": "integer"}, "then": number(draw)},
    "else": lambda draw: {"if": {"type": "integer"}, "else": text(draw)},
    "dependentSchemas": lambda draw: record(draw, dependentSchemas={"a": {"required": ["b"]}}),
    "contains": lambda draw: row(draw, contains=number(draw)),
    "propertyNames": lambda draw: {"type": "object", "propertyNames": text(draw)},
    "unevaluatedItems": lambda draw: row(draw, unevaluatedItems=False),
    "unevaluatedProperties": lambda draw: record(draw, unevaluatedProperties=False),
    "uniqueItems": lambda draw: row(draw, uniqueItems=True),
    "maxContains": lambda draw: row(draw, contains=number(draw), maxContains=2),
    "minContains": lambda draw: row(draw, contains=number(draw), minContains=1),
    "dependentRequired": lambda draw: record(draw, dependentRequired={"a": ["b"]}),
}
REFUSED: tuple[Schema, ...] = (
    *({"type": "string", "format": name} for name in OTHER_FORMATS),
    {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "maximum": 5}]},
    {"type": "string", "pattern": "^(?!a)b"},
    {"$ref": "https://example.org/elsewhere"},
)


def made_schemas(count: int = 300) -> list[tuple[str, Schema]]:
    """Return schemas with the keyword of each: unknown keywords three times, the others in turn."""
    draw = random.Random(2020)
    found = [(name, make(draw)) for name, make in UNKNOWN.items() for _ in range(3)]
    found += [("refused", schema) for schema in REFUSED]
    names = list(KNOWN)
    while len(found) < count:
        name = names[len(found) % len(names)]
        found.append((name, KNOWN[name](draw)))
    draw.shuffle(found)
    return found
