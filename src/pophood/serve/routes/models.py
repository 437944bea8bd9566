"""GET /v1/models and /v1/models/{id}: the models of this server, with the window that one request has."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pophood.openai import embeddings
from pophood.openai.tools.toolset import takes_tools
from pophood.sampling import SamplingSettings
from pophood.serve.catalog import Catalog, HostedModel


def listed(catalog: Catalog) -> dict[str, Any]:
    """Return the list of models."""
    return {"object": "list", "data": [described(hosted) for hosted in catalog.all()]}


def one(name: str, catalog: Catalog) -> dict[str, Any]:
    """Return the model of a name. Raises ApiError, 404, for another one."""
    return described(catalog.find(name))


def described(hosted: HostedModel) -> dict[str, Any]:
    """Return one model: OpenAI's four fields, and what clients look for elsewhere.

    `status` is that of llama.cpp's router. The window is under vLLM's name and under OpenRouter's, and both
    are what one request can use.
    """
    served = hosted.served
    chat = served.template is not None
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "pophood",
        "name": served.name,
        "status": {"value": hosted.state},
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
