"""pophood: pop the hood of a language model on your own laptop: run it, look inside, tune it.

    import pophood
    lm = pophood.load("smollm2")
    print(lm.generate("The capital of Spain is", max_tokens=10, temperature=0).text)

The names in `__all__` are the public library. Each is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pophood import _moved

if TYPE_CHECKING:
    from pophood.bench.measure import benchmark
    from pophood.config import ModelConfig
    from pophood.errors import PophoodError
    from pophood.generate import GenerateSettings, Token
    from pophood.grammar import Grammar
    from pophood.model.bundle import Bundle, open_bundle
    from pophood.model.engine import CancelFlag, Engine
    from pophood.model.lm import LM, Generation, load
    from pophood.model.score import Score
    from pophood.sampling import SamplingSettings
    from pophood.table import Table
    from pophood.train.loop.evaluation import evaluate
    from pophood.train.tune import tune

__version__ = "0.1.0"

_moved.install()

_NAMES = {  # module, below this package -> its public names
    "bench.measure": ("benchmark",),
    "config": ("ModelConfig",),
    "errors": ("PophoodError",),
    "generate": ("GenerateSettings", "Token"),
    "grammar": ("Grammar",),
    "model.bundle": ("Bundle", "open_bundle"),
    "model.engine": ("CancelFlag", "Engine"),
    "model.lm": ("LM", "Generation", "load"),
    "model.score": ("Score",),
    "sampling": ("SamplingSettings",),
    "table": ("Table",),
    "train.loop.evaluation": ("evaluate",),
    "train.tune": ("tune",),
}

__all__ = [
    "LM",
    "Bundle",
    "CancelFlag",
    "Engine",
    "GenerateSettings",
    "Generation",
    "Grammar",
    "ModelConfig",
    "PophoodError",
    "SamplingSettings",
    "Score",
    "Table",
    "Token",
    "benchmark",
    "evaluate",
    "load",
    "open_bundle",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import pophood` stays fast."""
    for module, names in _NAMES.items():
        if name in names:
            return getattr(importlib.import_module(f"pophood.{module}"), name)
    raise AttributeError(f"module 'pophood' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
