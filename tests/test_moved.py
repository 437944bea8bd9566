"""Old import paths: each gives the module at the new path, and warns."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

import pophood
from pophood._moved import MOVED, RENAMED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_same_module_and_warns(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"pophood.{old}", raising=False)
    path = f"pophood.{MOVED[old]}"
    new = importlib.import_module(path)
    with pytest.warns(DeprecationWarning, match=rf"pophood\.{old} has moved: import {path};") as warned:
        assert importlib.import_module(f"pophood.{old}") is new
    assert new.__spec__ is not None
    assert new.__name__ == new.__spec__.name == path
    assert len(warned) == 1


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_in_a_moved_module_is_there(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"pophood.{old}", raising=False)
    with pytest.warns(DeprecationWarning):
        module = importlib.import_module(f"pophood.{old}")
    for name, new_name in RENAMED[old].items():
        assert getattr(module, name) is getattr(module, new_name)


def test_the_warning_points_at_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "engine"
    old = f"pophood.{name}"
    monkeypatch.delitem(sys.modules, old, raising=False)
    names: dict[str, Any] = {}
    with pytest.warns(DeprecationWarning, match="has moved") as warned:
        exec(compile(f"from {old} import Engine", "program.py", "exec"), names)
    assert names["Engine"] is pophood.Engine
    assert warned[0].filename == "program.py"


def test_a_module_that_never_was_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'pophood\.engines'"):
        importlib.import_module("pophood.engines")


def test_a_function_that_moved_alone_is_there() -> None:
    from pophood.adapters.open import open_adapter
    from pophood.export import job

    with pytest.warns(DeprecationWarning, match=r"now in pophood\.adapters\.open"):
        assert job.open_adapter is open_adapter
