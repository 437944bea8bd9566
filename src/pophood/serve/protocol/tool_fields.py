"""Functions as OpenAPI describes them; `openai/tools/toolset.py` reads them. (small: two fields)"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import WithJsonSchema

from pophood.openai.tools.toolset import CHOICES, MOST_TOOLS

NAME: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
FUNCTION: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": NAME,
        "description": {"type": ["string", "null"]},
        "parameters": {
            "type": ["object", "null"],
            "properties": {"type": {"const": "object"}},
        },
        "strict": {"type": ["boolean", "null"]},
    },
}
ToolsField = Annotated[
    list[Any],
    WithJsonSchema(
        {
            "type": "array",
            "maxItems": MOST_TOOLS,
            "items": {
                "type": "object",
                "required": ["type", "function"],
                "properties": {"type": {"const": "function"}, "function": FUNCTION},
            },
        }
    ),
]
ToolChoiceField = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [None, *CHOICES]},
                {
                    "type": "object",
                    "required": ["type", "function"],
                    "properties": {
                        "type": {"const": "function"},
                        "function": {"type": "object", "required": ["name"], "properties": {"name": NAME}},
                    },
                },
            ]
        }
    ),
]
