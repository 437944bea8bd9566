"""Requests as pydantic reads them: names, types and ranges, strictly; and the reading of a body.

Ranges of samplers are those of `SamplingSettings`, checked when the settings are made (`sampling.py`). Fields
that are not here are refused or ignored by `fields.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from pophood.errors import one_line, short
from pophood.openai.errors import ApiError, invalid
from pophood.openai.fields import check_others
from pophood.openai.requests import FieldsT
from pophood.serve.protocol.tool_fields import ToolChoiceField, ToolsField

LARGEST = 2**31 - 1  # of counts and token ids
SmallInt = Annotated[int, Field(ge=-1, le=LARGEST)]
Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]  # single precision holds any sum of it
Ids: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
# Long lists are checked by hand (`prompts.py`): pydantic would try each of them as every type in turn.
PromptField = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {**Ids, "minItems": 1},
                {"type": "array", "items": {**Ids, "minItems": 1}, "minItems": 1},
            ]
        }
    ),
]
IdsField = Annotated[Any, WithJsonSchema(Ids)]
TextsField = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
]
BiasField = Annotated[
    Any,
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"anyOf": [{"type": "number"}, {"const": False}]}}
    ),
]
# A schema is read by `grammar/`, with its keys in their order.
SchemaField = Annotated[Any, WithJsonSchema({"type": ["object", "boolean"]})]
FormatField = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "required": ["type"],
            "oneOf": [
                {"properties": {"type": {"enum": ["text", "json_object"]}}},
                {
                    "required": ["json_schema"],
                    "properties": {
                        "type": {"const": "json_schema"},
                        "json_schema": {
                            "type": "object",
                            "required": ["schema"],
                            "properties": {"schema": {"type": ["object", "boolean", "string"]}},
                        },
                    },
                },
            ],
        }
    ),
]
ChoiceField = Annotated[
    list[Any],
    WithJsonSchema({"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}),
]
OutputsField = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": 1,
            "properties": {
                "json": {"type": ["object", "boolean"]},
                "regex": {"type": "string"},
                "choice": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
                "grammar": {"type": "string"},
                "json_object": {"type": "boolean"},
            },
        }
    ),
]
COUNTED = {"type": "integer", "minimum": 0}
InspectField = Annotated[
    Any,
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "top": {"type": "integer", "minimum": 0, "maximum": 20},
                "entropy": {"type": "boolean"},
                "lens": {
                    "anyOf": [
                        {"type": "boolean"},
                        {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "top": {"type": "integer", "minimum": 1, "maximum": 20},
                                "layers": {"type": "array", "items": COUNTED, "minItems": 1},
                            },
                        },
                    ]
                },
                "attention": {
                    "type": "array",
                    "items": {"type": "array", "items": COUNTED, "minItems": 2, "maxItems": 2},
                },
                "residual_norms": {"type": "boolean"},
                "prompt": {
                    "anyOf": [
                        {"type": "boolean"},
                        {"type": "array", "items": COUNTED, "minItems": 2, "maxItems": 2},
                    ]
                },
            },
        }
    ),
]
# Messages are read by the chat template; what is described here is what every template reads.
Text: dict[str, Any] = {
    "type": "object",
    "required": ["text"],
    "properties": {
        "type": {"enum": [None, "text", "input_text", "output_text"]},
        "text": {"type": ["string", "null"]},
    },
}
Conversation = Annotated[
    list[dict[str, Any]],
    Field(min_length=1),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {
                    "role": {"type": "string", "minLength": 1},
                    "content": {
                        "anyOf": [
                            {"type": "string"},
                            {"type": "array", "items": {"anyOf": [Text, {"type": "string"}]}},
                            {"type": "null"},
                        ]
                    },
                    "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}},
                },
            },
        }
    ),
]


class Body(BaseModel):
    """The base of every request: strict types, and other fields kept for `check_others`."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = None


class AdapterRequest(BaseModel):
    """One adapter by name, with the factor of its change."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    scale: Number = 1.0


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = None
    interval_ms: Annotated[int, Field(ge=0, le=10_000)] | None = None


class Generating(Body):
    """The fields that chat and completions share. None is the same as leaving a field out."""

    # how much, how often, where it ends
    max_tokens: SmallInt | None = None
    n_predict: SmallInt | None = None
    min_tokens: SmallInt | None = None
    n: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    seed: Annotated[int, Field(ge=-1, lt=2**64)] | None = None
    first_sample: Annotated[int, Field(ge=0, le=LARGEST)] | None = None
    stop: TextsField = None
    stop_token_ids: IdsField = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    # samplers, in pophood's names and llama.cpp's
    temperature: Number | None = None
    top_k: SmallInt | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    typical_p: Number | None = None
    repetition_penalty: Number | None = None
    repeat_penalty: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    penalty_window: SmallInt | None = None
    repeat_last_n: SmallInt | None = None
    dry_multiplier: Number | None = None
    dry_base: Number | None = None
    dry_allowed_length: SmallInt | None = None
    dry_window: SmallInt | None = None
    dry_penalty_last_n: SmallInt | None = None
    dry_breakers: TextsField = None
    dry_sequence_breakers: TextsField = None
    xtc_probability: Number | None = None
    xtc_threshold: Number | None = None
    logit_bias: BiasField = None
    order: TextsField = None
    samplers: TextsField = None
    # the form of the answer, in OpenAI's, llama.cpp's and vLLM's words
    response_format: FormatField | None = None
    json_schema: SchemaField = None
    grammar: str | None = None
    regex: str | None = None
    guided_json: SchemaField = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    guided_choice: ChoiceField | None = None
    structured_outputs: OutputsField | None = None
    # the answer
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_progress: bool | None = None
    inspect: InspectField = None
    adapters: Annotated[list[AdapterRequest], Field(max_length=16)] | None = None


class ChatRequest(Generating):
    """POST /v1/chat/completions, and its dry run."""

    messages: Conversation
    max_completion_tokens: SmallInt | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    tools: ToolsField | None = None
    tool_choice: ToolChoiceField = None
    parallel_tool_calls: bool | None = None


class CompletionRequest(Generating):
    """POST /v1/completions."""

    prompt: PromptField
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    add_special_tokens: bool | None = None
    parse_special: bool | None = None
    best_of: SmallInt | None = None


class TokenizeRequest(Body):
    """POST /tokenize: a text, or a conversation."""

    prompt: str | None = None
    messages: Conversation | None = None
    add_special_tokens: bool | None = None
    parse_special: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: ToolsField | None = None
    adapters: Annotated[list[AdapterRequest], Field(max_length=16)] | None = None
    return_token_strs: bool | None = None


class EmbeddingsRequest(Body):
    """POST /v1/embeddings."""

    input: PromptField
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: SmallInt | None = None
    pooling: Literal["mean", "last"] | None = None
    adapters: Annotated[list[AdapterRequest], Field(max_length=16)] | None = None


class DetokenizeRequest(Body):
    """POST /detokenize."""

    tokens: IdsField


class ModelRequest(Body):
    """POST /models/load and /models/unload."""

    model: str


RequestT = TypeVar("RequestT", bound=Body)


def read_object(body: bytes) -> dict[str, Any]:
    """Return the object in a body. Raises ApiError, 400, for anything that is not JSON."""
    try:
        data = _DECODER.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except ApiError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, numbers of 5,000 digits too
        raise invalid(f"the body is not JSON: {one_line(error)}", code="invalid_json") from error
    if not isinstance(data, dict):
        raise invalid("the body is not a JSON object", code="invalid_json")
    return data


def read_body(body: bytes, kind: type[RequestT]) -> RequestT:
    """Return the request in a body. Raises ApiError, 400, that names the first field that is wrong."""
    data = read_object(body)
    try:
        request = kind.model_validate(data)
    except ValidationError as error:
        raise of_validation(error) from error
    check_others(request.model_extra or {}, kind.model_fields)
    return request


def fields_of(request: Generating, kind: type[FieldsT]) -> FieldsT:
    """Return the fields of a request as the plain record that everything behind reads."""
    values = {one.name: getattr(request, one.name) for one in fields(kind)}
    if request.stream_options is not None:
        values["stream_options"] = request.stream_options.model_dump(exclude_unset=True)
    return kind(**values)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise invalid(f"the number {text[:30]} is too large", code="invalid_json")
    return value


def _no_constant(name: str) -> float:
    raise invalid(f"the body is not JSON: {name} is no number of JSON", code="invalid_json")


# Kept: making a decoder takes as long as reading a body.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def of_validation(error: ValidationError) -> ApiError:
    """Return what is wrong with the first field, with its place as in `messages[0].content`."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    place = place[:120]
    if first["type"] == "missing":
        return invalid(f"Missing required parameter: '{place}'.", place, "missing_required_parameter")
    said = first["msg"].removeprefix("Input should be ")
    got = short(first["input"])
    return invalid(f"{place}: got {got}; wanted {said}", place, "invalid_value")


def as_schema(kind: type[Body]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the JSON schema of a request, and the schemas that it refers to, for OpenAPI."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return schema, schema.pop("$defs", {})
