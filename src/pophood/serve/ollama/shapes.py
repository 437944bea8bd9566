"""The JSON of Ollama's routes: the list of models, one model, and the pieces of an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pophood import __version__
from pophood.openai.choices import Counts
from pophood.openai.model import ServedModel
from pophood.openai.tools.toolset import takes_tools
from pophood.serve.catalog import Catalog

VERSION = "0.6.4"  # the version of Ollama whose protocol this is: VS Code asks for that one or a later one
Json = dict[str, Any]
Kind = Literal["chat", "generate"]


def version() -> Json:
    """Return the answer of /api/version, which says who is behind it."""
    return {"version": VERSION, "server": f"pophood {__version__}"}


def tags(catalog: Catalog) -> Json:
    """Return the list of models."""
    return {"models": [_entry(hosted.served) for hosted in catalog.all()]}


def _entry(served: ServedModel) -> Json:
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": moment(served.created),
        "size": served.weight_bytes,
        "digest": hashlib.sha256(served.fingerprint.encode()).hexdigest(),
        "details": _details(served),
    }


def show(served: ServedModel) -> Json:
    """Return the facts of a model; `context_length` is the window that one request really has."""
    architecture = served.architecture
    sizes = {
        "context_length": served.window,
        "block_count": served.layers,
        "attention.head_count": served.heads,
        "vocab_size": served.vocab_size,
    }
    tools = ["tools"] if served.template is not None and takes_tools(served.template) else []
    return {
        "modelfile": "",
        "parameters": "",
        "template": "" if served.template is None else served.template.source,
        "details": _details(served),
        "model_info": {
            "general.architecture": architecture,
            "general.basename": served.name,
            "general.parameter_count": served.parameters,
            **{f"{architecture}.{name}": value for name, value in sizes.items() if value is not None},
        },
        "capabilities": ["completion", *tools],
        "modified_at": moment(served.created),
    }


def _details(served: ServedModel) -> Json:
    millions = (served.parameters or 0) / 1e6
    return {
        "parent_model": "",
        "format": "gguf",
        "family": served.architecture,
        "families": [served.architecture],
        "parameter_size": f"{millions / 1e3:.1f}B" if millions >= 1e3 else f"{millions:.2f}M",
        "quantization_level": "",
    }


def moment(seconds: float | None = None) -> str:
    """Return a time as Ollama writes it, of seconds since 1970 or of now.

    >>> moment(0)
    '1970-01-01T00:00:00.000000Z'
    """
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class OllamaShape:
    """The pieces of one answer, of a chat or of a prompt."""

    def __init__(self, kind: Kind, model: str) -> None:
        self._kind, self._model = kind, model

    def piece(self, text: str, calls: Sequence[tuple[str, str]], logprobs: list[Json]) -> Json:
        """Return new text, or the whole of an answer that is not streamed, with whole calls of functions."""
        told = {"logprobs": logprobs} if logprobs else {}
        return self._head() | self._said(text, calls) | {"done": False, **told}

    def end(self, reason: str, counts: Counts, seconds: float) -> Json:
        """Return the fields that end an answer."""
        spent = counts.timings
        return {
            "done": True,
            "done_reason": "stop" if reason == "tool_calls" else reason,
            "total_duration": _nanoseconds(seconds),
            "load_duration": 0,
            "prompt_eval_count": counts.prompt,
            "prompt_eval_duration": _nanoseconds(spent.prefill_seconds),
            "eval_count": counts.generated,
            "eval_duration": _nanoseconds(spent.decode_seconds),
        }

    def loaded(self) -> Json:
        """Return the answer to a request without a prompt: the model is there."""
        return self._head() | self._said("", ()) | {"done": True, "done_reason": "load"}

    def _head(self) -> Json:
        return {"model": self._model, "created_at": moment()}

    def _said(self, text: str, calls: Sequence[tuple[str, str]]) -> Json:
        if self._kind == "generate":
            return {"response": text}
        made = [{"function": {"name": name, "arguments": _object(arguments)}} for name, arguments in calls]
        return {"message": {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}}


def _object(arguments: str) -> Json:
    """Return the arguments of a call; those that `num_predict` cut are empty, as the reason "length" says."""
    try:
        values = json.loads(arguments)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
