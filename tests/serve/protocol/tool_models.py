"""Random models whose vocabulary has the marks of calls, and texts that such a model is made to write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from pophood.openai.tools.formats import ARGS, FORMATS, CallFormat
from tests.text.tool_templates import TOOL_TEMPLATES
from tests.tiny import tiny_folder
from tests.tiny_vocabulary import tokenizer_json

HIDDEN = ("[TOOL_CALLS]", "[ARGS]", "<|python_tag|>")  # special, as publishers have them
SHOWN = ("<tool_call>", "</tool_call>")
SIZE, WINDOW = 512, 2_048

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "unit": {"enum": ["C", "F"]},
                "days": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            },
            "required": ["city", "unit"],
        },
    },
}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOW]


def tool_folder(path: Path, name: str) -> Path:
    """Write a model whose template is that of a format."""
    tiny_folder(path, "qwen2", n_positions=WINDOW, vocab_size=SIZE)
    tokenizer: Any = Tokenizer.from_str(tokenizer_json("qwen", SIZE - len(HIDDEN) - len(SHOWN)))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in HIDDEN])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in SHOWN])
    tokenizer.save(str(path / "tokenizer.json"))
    config = json.loads((path / "tokenizer_config.json").read_text())
    config["chat_template"] = TOOL_TEMPLATES[name]
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def call_text(form: CallFormat, name: str, arguments: str) -> str:
    """Return one call as models of a format write it, as the only one of an answer."""
    if form.style == "named":
        return f"{form.opens}{name}{ARGS}{arguments}"
    one = f'{{"name": {json.dumps(name)}, "{form.key}": {arguments}}}'
    if form.style == "tagged":
        return f"{form.opens}\n{one}\n{form.closes}"
    return one if form.style == "bare" else f"{form.opens}{form.gap}[{one}]"


def forced(text: str, ids: Mapping[str, int]) -> dict[str, Any]:
    """Return fields that let a model write exactly this text, in which `ids` are marks that are tokens."""
    parts = [text]
    for mark in ids:
        parts = [piece for part in parts for piece in _cut(part, mark)]
    rules = [f"<[{ids[part]}]>" if part in ids else json.dumps(part) for part in parts if part]
    return {"grammar": f"start: {' '.join(rules)}\n", "max_tokens": 1_500}


def _cut(part: str, mark: str) -> list[str]:
    if part == mark:
        return [part]
    pieces = part.split(mark)
    return [piece for place, one in enumerate(pieces) for piece in ((mark, one) if place else (one,))]


def form_of(name: str) -> CallFormat:
    return FORMATS[name]
