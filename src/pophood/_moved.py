"""Old import paths of documented modules, which work with a DeprecationWarning until version 0.3.

Python asks the finder below only for a module that nothing else finds. An old path then gives the module at
the new one. The names in `pophood.__all__` and the functions of `pophood.look` have not moved.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "pophood.adapters.adapter": "pophood.adapters.adapter",
    "pophood.model.bundle": "pophood.model.bundle",
    "pophood.model.engine": "pophood.model.engine",
    "pophood.model.lm": "pophood.model.lm",
    "pophood.model.score": "pophood.model.score",
    "pophood.model.trace": "pophood.model.trace",
    "pophood.look.math.heads": "pophood.look.math.heads",
    "pophood.train.model.attention": "pophood.train.model.attention",
    "pophood.train.loop.evaluation": "pophood.train.loop.evaluation",
    "pophood.train.model.build": "pophood.train.model.build",
    "pophood.train.model.loss": "pophood.train.model.loss",
    "pophood.train.report.measures": "pophood.train.report.measures",
}
RENAMED = {"pophood.train.model.build": {"build": "build_model"}}  # old path -> old name in it -> new name


class MovedModules:
    """Finds a module by its old path and loads the one at its new path in its place."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of an old path, and warn with the new one; return None for any other name."""
        if name not in MOVED:
            return None
        warnings.warn(
            f"{name} has moved: import {MOVED[name]}; the old path goes in pophood 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        return ModuleSpec(name, self)  # type: ignore[arg-type] # not a Loader: importlib.abc is slow to import

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None, so that Python creates an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module of the old path by the module at the new one."""
        assert module.__spec__ is not None
        old = module.__spec__.name
        moved = importlib.import_module(MOVED[old])
        for name, new_name in RENAMED.get(old, {}).items():
            setattr(moved, name, getattr(moved, new_name))
        sys.modules[old] = moved


def install() -> None:
    """Add the finder behind all others."""
    sys.meta_path.append(MovedModules())
