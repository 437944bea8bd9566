"""The private functions of torch that training uses exist, and only one file uses them."""

from __future__ import annotations

import ast
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch

from pophood.model.bundle import open_bundle
from pophood.train.model import buffer_pool, ops
from pophood.train.model.build import build_model
from pophood.train.settings import TrainSettings
from tests import processes
from tests.conftest import ROOT
from tests.tiny import tiny_folder

PACKAGE = ROOT / "src" / "pophood"
# Name below torch -> what breaks in pophood when a release of torch removes it.
BREAKS = {
    "_C._storage_Use_Count": "nothing fails, but no buffer is reused: memory use grows by 7 MB a block",
    "_fused_adamw_": "every update of a float32 run fails",
    "_C._autograd._top_saved_tensors_default_hooks": "every bf16 step fails, in recompute_saved",
    "cpu._is_amx_tile_supported": "building a model with precision auto fails, and so does the bf16 loss",
    "cpu._is_avx512_bf16_supported": "building a model with precision auto fails",
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_function_exists(name: str) -> None:
    function: Any = torch
    for part in name.split("."):
        function = getattr(function, part, None)
    assert callable(function), f"torch.{name} is gone: {BREAKS[name]}"


def private_names(path: Path) -> set[str]:
    """Attributes of torch whose path has a part that begins with one underscore, such as torch._C.x."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    dotted = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    names = {name.removeprefix("torch.") for name in dotted if name.startswith("torch.") and "(" not in name}
    return {name for name in names if any(part[0] == "_" and part[:2] != "__" for part in name.split("."))}


def test_only_torch_private_uses_private_functions() -> None:
    used = {path.relative_to(PACKAGE).as_posix(): private_names(path) for path in PACKAGE.rglob("*.py")}
    used = {path: names for path, names in used.items() if names}
    assert list(used) == ["train/model/torch_private.py"]
    names = used["train/model/torch_private.py"] | {"_C._storage_Use_Count"}  # by getattr
    assert {name for name in names if callable(attrgetter(name)(torch))} == set(BREAKS)


NO_EFFECTS = """
import ctypes, importlib, pathlib, sys, torch, numpy
def refuse(*_, **__):
    raise SystemExit("a module loads the C library when it is imported")
ctypes.CDLL = refuse
folder = pathlib.Path(sys.argv[1])
for path in sorted((folder / "train").rglob("*.py")):
    name = ".".join(("pophood", *path.relative_to(folder).with_suffix("").parts))
    importlib.import_module(name.removesuffix(".__init__"))
print("no effects")
"""


def test_importing_training_changes_neither_the_allocator_nor_the_threads() -> None:
    command = [sys.executable, "-c", NO_EFFECTS, str(PACKAGE)]
    result = processes.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "no effects\n"), result.stderr[-2_000:]


def test_building_a_model_keeps_pages_and_shares_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(buffer_pool, "_call_glibc", lambda name, *_: calls.append(name))
    monkeypatch.setattr(ops, "share_torch_threads", lambda: calls.append("share_torch_threads"))
    tiny_folder(tmp_path / "model", "gpt2")
    build_model(open_bundle(tmp_path / "model"), TrainSettings(precision="f32"))
    assert calls == ["mallopt", "mallopt", "share_torch_threads", "malloc_trim"]
