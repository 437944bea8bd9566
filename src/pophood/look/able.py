"""Which views can say something right about which architectures; the others are refused by name.

Most views show arrays of the engine, but many compute a step again, write its formula, or draw a block as
GPT-2, Llama and Qwen have it. `ModelConfig.beyond_plain` names what a model has beyond these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pophood.config import ModelConfig
from pophood.errors import Unsupported

P = ParamSpec("P")
V = TypeVar("V")

_INSIDE_ATTENTION = frozenset(
    {
        "attention windows",
        "blocks that rotate differently",
        "rotation of a part of each head",
        "rotation with a magnitude",
        "norms over all heads",
        "an attention scale",
        "capped scores",
    }
)
_WINDOWS = frozenset({"attention windows"})
_ORDER = frozenset({"a parallel feed-forward", "a gate without SiLU", "biases that differ between matrices"})
# What each view computes or draws rightly, beyond GPT-2, Llama and Qwen; None: everything.
_HANDLED: dict[str, frozenset[str] | None] = {
    **dict.fromkeys(("scale", "tokens", "embeddings", "next", "surprise", "parameters"), None),
    "attention": _INSIDE_ATTENTION | _ORDER | {"capped logits"},
    **dict.fromkeys(("hidden", "norm", "feedforward", "output", "lens", "residual"), _INSIDE_ATTENTION),
    **dict.fromkeys(("architecture", "positions", "before", "dropout"), _WINDOWS),
}


def checking_model(name: str, function: Callable[P, V]) -> Callable[P, V]:
    """Wrap a view function so that it refuses a model of which the view would say something wrong."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> V:
        config = getattr(args[0] if args else kwargs.get("lm"), "config", None)
        if isinstance(config, ModelConfig):
            check_model(name, config)
        return function(*args, **kwargs)

    return checked


def check_model(name: str, config: ModelConfig) -> None:
    """Raise Unsupported, naming what is in the way, if a view cannot show a model."""
    handled = _HANDLED[name]
    odd = [] if handled is None else [part for part in config.beyond_plain if part not in handled]
    if odd:
        others = ", ".join(view for view, parts in _HANDLED.items() if parts is None)
        raise Unsupported(
            f"the view {name} does not show {' or '.join(odd)}, which this {config.architecture} has: look at"
            f" {others}, or read the arrays with `pophood look trace`"
        )
