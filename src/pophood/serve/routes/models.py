"""GET /v1/models and /v1/models/{id}: the model that is loaded, with the window that a request really has."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pophood.openai import embeddings
from pophood.openai.errors import unknown_model
from pophood.openai.model import ServedModel
from pophood.openai.tools.toolset import takes_tools
from pophood.sampling import SamplingSettings


def listed(served: ServedModel) -> dict[str, Any]:
    """Return the list of models, which is one."""
    return {"object": "list", "data": [described(served)]}


def one(name: str, served: ServedModel) -> dict[str, Any]:
    """Return the model of a name. Raises ApiError, 404, for another one."""
    if not served.answers_to(name):
        raise unknown_model(name, served.name)
    return described(served)


def described(served: ServedModel) -> dict[str, Any]:
    """Return one model: OpenAI's four fields, and what clients look for elsewhere.

    The window is under vLLM's name and under OpenRouter's, and both are what one request can use.
    """
    chat = served.template is not None
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "pophood",
        "name": served.name,
        "aliases": list(served.aliases),
        "max_model_len": served.window,
        "context_length": served.window,
        "system_fingerprint": served.fingerprint,
        "capabilities": {
            "chat": chat,
            "completion": True,
            "logprobs": True,
            "prompt_logprobs": True,
            "tools": served.template is not None and takes_tools(served.template),
            "inspect": True,
            "embeddings": True,
            "response_format": True,
        },
        "embeddings": embeddings.described(),
        "adapters": [{"id": name, "usual": name in dict(served.usual_adapters)} for name in served.adapters],
        "sampling_defaults": sampling_defaults(served.sampling),
        "meta": {
            "n_vocab": served.vocab_size,
            "n_ctx_train": served.trained_window,
            "n_params": served.parameters,
        },
    }


def sampling_defaults(sampling: SamplingSettings) -> dict[str, Any]:
    """Return the samplers of a request that gives none, under the names of its fields."""
    skipped = ("logit_bias", "dry_breakers")
    values = {field.name: getattr(sampling, field.name) for field in fields(sampling)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in skipped
    }
