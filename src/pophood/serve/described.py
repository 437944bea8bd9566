"""Schemas of the answers of each route, for the description of the server as OpenAPI.

What is described is what clients may rely on; answers have more fields (docs/serve.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Schema = dict[str, Any]
JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"

COUNT: Schema = {"type": "integer", "minimum": 0}
STRING: Schema = {"type": "string"}
LOG_PROBABILITY: Schema = {"type": "number", "maximum": 0}
FINISH: Schema = {"enum": ["stop", "length", "tool_calls"]}


def _object(**fields: Schema) -> Schema:
    """Return the schema of an object with these fields, and perhaps others."""
    return {"type": "object", "required": list(fields), "properties": fields}


def _with(schema: Schema, **fields: Schema) -> Schema:
    """Return the schema of an object that may have these fields too."""
    return schema | {"properties": schema["properties"] | fields}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_BYTES = _or_null(_list({"type": "integer", "minimum": 0, "maximum": 255}))
_LIKELY = _object(token=STRING, logprob=LOG_PROBABILITY, bytes=_BYTES)
_ENTRY = _object(
    token=STRING, logprob=LOG_PROBABILITY, bytes=_BYTES, top_logprobs=_list(_LIKELY, maxItems=20)
)
_LISTS = _object(
    tokens=_list(STRING),
    token_logprobs=_list(_or_null(LOG_PROBABILITY)),
    top_logprobs=_or_null(
        _list(_or_null({"type": "object", "additionalProperties": LOG_PROBABILITY})),
    ),
    text_offset=_list(COUNT),
)
_USAGE = _object(
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    total_tokens=COUNT,
    prompt_tokens_details=_object(cached_tokens=COUNT),
)
_TIMINGS = _object(
    cache_n=COUNT,
    prompt_n=COUNT,
    prompt_ms={"type": "number", "minimum": 0},
    prompt_per_second=_or_null({"type": "number", "minimum": 0}),
    predicted_n=COUNT,
    predicted_ms={"type": "number", "minimum": 0},
    predicted_per_second=_or_null({"type": "number", "minimum": 0}),
)
_NUMBERS = _list({"type": "number"})
_LISTED = _list(
    _object(id=COUNT, token=STRING, logit={"type": "number"}, logprob=LOG_PROBABILITY), maxItems=20
)
_INSIDES = _list(
    _with(
        _object(position=COUNT, part={"enum": ["prompt", "answer"]}, id=COUNT, token=STRING),
        logprob=LOG_PROBABILITY,
        top=_LISTED,
        entropy={"type": "number", "minimum": 0},
        lens=_list(_object(layer=COUNT, top=_LISTED)),
        attention=_list(_object(layer=COUNT, head=COUNT, weights=_NUMBERS)),
        residual_norms=_NUMBERS,
    )
)
_CHAT_CHOICE = _object(
    index=COUNT,
    message=_object(role={"const": "assistant"}, content=_or_null(STRING), refusal={"type": "null"}),
    logprobs=_or_null(_object(content=_list(_ENTRY), refusal={"type": "null"})),
    finish_reason=FINISH,
)
_TEXT_CHOICE = _object(index=COUNT, text=STRING, logprobs=_or_null(_LISTS), finish_reason=FINISH)
_MODEL = _object(
    id=STRING,
    object={"const": "model"},
    created=COUNT,
    owned_by=STRING,
    name=STRING,
    status=_object(value={"enum": ["unloaded", "loading", "loaded"]}),
    max_model_len=COUNT,
    context_length=COUNT,
    system_fingerprint=STRING,
    capabilities={"type": "object", "additionalProperties": {"type": "boolean"}},
    adapters=_list(_object(id=STRING, usual={"type": "boolean"})),
)
_DONE = _object(success={"const": True})
_TOKENS = _object(count=COUNT, max_model_len=COUNT, tokens=_list(COUNT), token_strs=_or_null(_list(STRING)))
_TOKENIZER = _object(
    eos_token=STRING,
    bos_token=_or_null(STRING),
    pad_token=_or_null(STRING),
    chat_template=_or_null(STRING),
    model_max_length=COUNT,
    vocab_size=COUNT,
)
_RENDERED = _object(
    object={"const": "chat.completion.render"},
    model=STRING,
    prompt=STRING,
    prompt_token_ids=_list(COUNT),
    token_strs=_list(STRING),
    prompt_tokens=COUNT,
    max_model_len=COUNT,
    fits={"type": "boolean"},
    warnings=_list(STRING),
)


_EMBEDDINGS = _object(
    object={"const": "list"},
    data=_list(
        _object(
            object={"const": "embedding"},
            index=COUNT,
            embedding={"anyOf": [_list({"type": "number"}), STRING]},
        )
    ),
    model=STRING,
    usage=_object(prompt_tokens=COUNT, total_tokens=COUNT),
    pooling={"enum": ["mean", "last"]},
)
_RESPONSE = _object(
    id=STRING,
    object={"const": "response"},
    created_at=COUNT,
    status={"enum": ["completed", "incomplete"]},
    model=STRING,
    output=_list(_object(id=STRING, type={"enum": ["message", "function_call"]}, status=STRING), minItems=1),
    usage=_object(input_tokens=COUNT, output_tokens=COUNT, total_tokens=COUNT),
    store={"const": False},
    seed=COUNT,
)


def _answer(name: str, choice: Schema) -> Schema:
    choice = _with(choice, inspect=_INSIDES)
    whole = _object(
        id=STRING,
        object={"const": name},
        created=COUNT,
        model=STRING,
        system_fingerprint=STRING,
        choices=_list(choice, minItems=1),
        usage=_USAGE,
        timings=_TIMINGS,
        seed=COUNT,
    )
    return _with(whole, inspect=_object(bound=COUNT, values=COUNT, truncated={"type": "boolean"}))


# Path -> content type -> schema of an answer with the status 200.
ANSWERS: Mapping[str, Mapping[str, Schema]] = MappingProxyType(
    {
        "/v1/chat/completions": {JSON: _answer("chat.completion", _CHAT_CHOICE), EVENTS: STRING},
        "/v1/chat/completions/render": {JSON: _RENDERED},
        "/v1/responses": {JSON: _RESPONSE, EVENTS: STRING},
        "/v1/completions": {JSON: _answer("text_completion", _TEXT_CHOICE), EVENTS: STRING},
        "/v1/embeddings": {JSON: _EMBEDDINGS},
        "/tokenize": {JSON: _TOKENS},
        "/v1/tokenize": {JSON: _TOKENS},
        "/detokenize": {JSON: _object(prompt=STRING)},
        "/v1/detokenize": {JSON: _object(prompt=STRING)},
        "/models/load": {JSON: _DONE},
        "/models/unload": {JSON: _DONE},
        "/v1/models": {JSON: _object(object={"const": "list"}, data=_list(_MODEL))},
        "/v1/models/{model:path}": {JSON: _MODEL},
        "/tokenizer_info": {JSON: _TOKENIZER},
        "/v1/tokenizer_info": {JSON: _TOKENIZER},
        "/health": {JSON: _object(status=STRING)},
        "/metrics": {TEXT: STRING},
    }
)
