"""POST /v1/responses as pydantic reads it; `openai/responses/request.py` has what is refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from pophood.openai.tools.toolset import CHOICES, MOST_TOOLS
from pophood.serve.protocol.schemas import Generating, SmallInt
from pophood.serve.protocol.tool_fields import FUNCTION, NAME

_TEXT: dict[str, Any] = {"type": "string"}
# Items are read by `openai/responses/items.py`.
InputField = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 2}}]}
    ),
]
FlatTools = Annotated[
    list[Any],
    WithJsonSchema(
        {
            "type": "array",
            "maxItems": MOST_TOOLS,
            "items": {
                **FUNCTION,
                "required": ["type", "name"],
                "properties": {"type": {"const": "function"}, **FUNCTION["properties"]},
            },
        }
    ),
]
_NAMED = {
    "type": "object",
    "required": ["type", "name"],
    "properties": {"type": {"const": "function"}, "name": NAME},
}
FlatChoice = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"enum": [None, *CHOICES]}, _NAMED]}),
]
TextField = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "format": {
                    "oneOf": [
                        {"type": "null"},
                        {
                            "type": "object",
                            "required": ["type"],
                            "properties": {"type": {"enum": ["text", "json_object"]}},
                        },
                        {
                            "type": "object",
                            "required": ["type", "schema"],
                            "properties": {
                                "type": {"const": "json_schema"},
                                "schema": {"type": ["object", "boolean", "string"]},
                            },
                        },
                    ]
                }
            },
        }
    ),
]
Nothing = Annotated[Any, WithJsonSchema({"type": "null"})]


class ResponsesRequest(Generating):
    """POST /v1/responses."""

    input: InputField
    instructions: str | None = None
    max_output_tokens: SmallInt | None = None
    text: TextField | None = None
    include: list[Any] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: FlatTools | None = None
    tool_choice: FlatChoice = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    # refused, unless their value asks for what happens anyway
    store: bool | None = None
    previous_response_id: Nothing = None
    conversation: Nothing = None
    background: bool | None = None
    prompt: Nothing = None
    truncation: Any = None
    max_tool_calls: Nothing = None
    context_management: Nothing = None
