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

MOVED = {  # old path -> new path, both below `pophood`
    "adapter": "adapters.adapter",
    "bundle": "model.bundle",
    "engine": "model.engine",
    "lm": "model.lm",
    "score": "model.score",
    "trace": "model.trace",
    "look.heads": "look.math.heads",
    "train.attention": "train.model.attention",
    "train.evaluation": "train.loop.evaluation",
    "train.learner": "train.model.build",
    "train.loss": "train.model.loss",
    "train.measures": "train.report.measures",
}
RENAMED = {"train.learner": {"build": "build_model"}}  # old path -> old name in it -> new name


class MovedModules:
    """Finds a module by its old path and loads the one at its new path in its place."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of an old path, and warn with the new one; return None for any other name."""
        package, _, old = name.partition(".")
        if package != "pophood" or old not in MOVED:
            return None
        warnings.warn(
            f"{name} has moved: import pophood.{MOVED[old]}; the old path goes in version 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        return ModuleSpec(name, self)  # type: ignore[arg-type] # not a Loader: importlib.abc is slow to import

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None, so that Python creates an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module of the old path by the module at the new one."""
        assert module.__spec__ is not None
        path = module.__spec__.name
        old = path.removeprefix("pophood.")
        moved = importlib.import_module(f"pophood.{MOVED[old]}")
        for name, new_name in RENAMED.get(old, {}).items():
            setattr(moved, name, getattr(moved, new_name))
        sys.modules[path] = moved


def install() -> None:
    """Add the finder behind all others."""
    sys.meta_path.append(MovedModules())
