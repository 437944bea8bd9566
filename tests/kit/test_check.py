"""`pophood kit check`: "ready", or the one thing that is missing or damaged; and how a laptop is set up."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pophood.cli.app import pophood
from pophood.errors import BadFile, NotFound, PophoodError
from pophood.kit import KitPlan, check, copying, kit_fault, laptop_fault, manifest_of, place_models
from pophood.kit.manifest import KIT, MAKING, SUMS, KitManifest, read_manifest
from tests.kit.conftest import Listener


def rewrite(kit: Path, **changes: Any) -> None:
    """Change facts in a kit's kit.json, and its hash."""
    facts = json.loads((kit / KIT).read_text(encoding="utf-8")) | changes
    (kit / KIT).write_text(json.dumps(facts), encoding="utf-8")
    sums = (kit / SUMS).read_text(encoding="utf-8").splitlines()
    digest = copying.hash_of(kit / KIT)
    lines = [f"{digest}  {KIT}" if line.endswith(f"  {KIT}") else line for line in sums]
    (kit / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_every_file_is_noticed(kit: Path, listener: Listener) -> None:
    files = [path for path in sorted(kit.rglob("*")) if path.is_file() and path.name != SUMS]
    assert len(files) > 12
    for path in files:
        content = path.read_bytes()
        path.unlink()
        assert kit_fault(kit, listener.dialogue) == f"{path} is missing: copy the kit again"
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if content else b"x")
        assert kit_fault(kit, listener.dialogue) == f"{path} is damaged: copy the kit again"
        path.write_bytes(content)
    (kit / "notes of the teacher.txt").write_text("see page 3", encoding="utf-8")
    assert kit_fault(kit, listener.dialogue) is None


DAMAGED_LISTS = [
    (b"", "damaged: kit.json is not in it"),
    (b"\xff\xfe", "damaged: it is not text"),
    (b"nonsense\n", "damaged: a line is not HASH and FILE"),
    (b"0" * 64 + b"  ../../etc/passwd\n", "leads out of the kit"),
    (b"0" * 64 + b"  /etc/passwd\n", "leads out of the kit"),
    (b"0" * 5_000_000, "5,000,000 bytes are too many"),
]
DAMAGED_DESCRIPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "a kit of format 2; wanted 1: made by a newer pophood?"),
    ({"pythons": 3}, "it does not describe a kit"),
    ({"more": 1}, "it does not describe a kit"),
    ({"models": [{"name": "a", "folder": "../a", "licence": None, "files": {}}]}, "leads out of the kit"),
    ({"models": [{"name": "a", "folder": "a", "licence": None, "files": {"/x": ""}}]}, "leads out"),
    ({"models": [{"name": "a", "folder": "a", "licence": None, "files": []}]}, "does not describe a kit"),
]


def test_a_damaged_list_or_description(kit: Path, listener: Listener) -> None:
    whole, right = (kit / SUMS).read_bytes(), (kit / KIT).read_bytes()
    for content, words in DAMAGED_LISTS:
        (kit / SUMS).write_bytes(content)
        assert words in str(kit_fault(kit, listener.dialogue))
    for changes, words in DAMAGED_DESCRIPTIONS:
        (kit / SUMS).write_bytes(whole)
        (kit / KIT).write_bytes(right)
        rewrite(kit, **changes)
        assert words in str(kit_fault(kit, listener.dialogue))


def test_a_folder_that_is_no_kit(tmp_path: Path, listener: Listener) -> None:
    assert "no kit: SHA256SUMS is missing" in str(kit_fault(tmp_path / "nowhere", listener.dialogue))
    with pytest.raises(NotFound, match="no kit: SHA256SUMS is missing"):
        manifest_of(tmp_path)
    (tmp_path / MAKING).mkdir()
    with pytest.raises(NotFound, match="this kit is not finished"):
        manifest_of(tmp_path)


def test_models_are_placed_whole_or_not_at_all(
    kit: Path, home: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(kit)
    (model,) = manifest.models
    place_models(kit, manifest, listener.dialogue)
    assert f"tiny: already here: {home / 'models' / 'tiny'}" in listener.said
    shutil.rmtree(home / "models" / "tiny")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(PophoodError, match="the disk is full"):
        patch.setattr(copying, "sync_file", full)
        place_models(kit, manifest, listener.dialogue)
    assert not list((home / "models").glob("[!.]*"))
    weights = kit / "models" / "tiny" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"?")
    with pytest.raises(BadFile, match=r"model\.safetensors: damaged: its SHA-256 is"):
        place_models(kit, manifest, listener.dialogue)
    assert not list((home / "models").glob("[!.]*"))
    weights.write_bytes(content)
    place_models(kit, manifest, listener.dialogue)
    assert copying.model_fault(model) is None
    (home / "models" / "tiny" / "model.safetensors").write_bytes(content[:-1] + b"?")
    assert "is damaged" in str(copying.model_fault(model))
    place_models(kit, manifest, listener.dialogue)
    assert copying.model_fault(model) is None, "a damaged model is replaced"


def set_up(kit: Path, listener: Listener, installed: Path, monkeypatch: pytest.MonkeyPatch) -> KitManifest:
    """Pretend that this Python got the kit's packages, but for pophood itself."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for wheel in (kit / "wheels").glob("[!p]*.whl"):
        shutil.unpack_archive(wheel, installed, "zip")
    monkeypatch.syspath_prepend(installed)
    manifest = manifest_of(kit)
    packages = {name: v for name, v in manifest.packages["3.11"].items() if name != "pophood"}
    manifest = replace(manifest, packages={python: packages}, pythons=(python,))
    place_models(kit, manifest, listener.dialogue)
    return manifest


def test_a_laptop_is_ready_or_one_thing_is_wrong(
    kit: Path, tmp_path: Path, home: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    manifest = set_up(kit, listener, installed, monkeypatch)

    def fault() -> str | None:
        return laptop_fault(manifest, listener.dialogue)

    assert fault() is None
    module = installed / "deeper" / "__init__.py"
    module.write_text("changed", encoding="utf-8")
    again = "run the kit's setup.sh again"
    assert fault() == f"deeper/__init__.py of the package deeper is missing or damaged: {again}"
    module.unlink()
    assert fault() == f"deeper/__init__.py of the package deeper is missing or damaged: {again}"
    module.write_text("", encoding="utf-8")
    info = installed / "deeper-1.2.dist-info"
    info.rename(installed / "gone")
    assert fault() == f"the package deeper 1.2 is missing: {again}"
    (installed / "gone").rename(info)
    newer = {python: packages | {"deeper": "1.3"} for python, packages in manifest.packages.items()}
    assert "the package deeper is 1.2; the kit has 1.3" in str(
        laptop_fault(replace(manifest, packages=newer), listener.dialogue)
    )
    other = replace(manifest, packages={"3.99": {}}, pythons=("3.99",))
    assert "the kit is for 3.99" in str(laptop_fault(other, listener.dialogue))
    weights = home / "models" / "tiny" / "model.safetensors"
    weights.rename(home / "elsewhere")
    assert fault() == f"tiny: {weights} is missing: {again}"
    (home / "elsewhere").rename(weights)
    monkeypatch.setattr(check, "locate", lambda *_, **__: (_ for _ in ()).throw(NotFound("no engine")))
    assert fault() == "tiny does not run here: no engine"


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, kit: Path) -> None:
    from pophood.train import torch_install

    manifest = replace(manifest_of(kit), extras=("train",))
    monkeypatch.setattr(torch_install, "import_torch", lambda: (_ for _ in ()).throw(ImportError("libc10")))
    assert "torch cannot be imported: libc10" in str(check._torch(manifest))


def test_the_commands(
    kit: Path, plan: KitPlan, tmp_path: Path, home: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(pophood, ["kit", *words])
        return result.exit_code, result.output

    wheels = str(plan.wheels[0])
    code, text = run(
        "--wheel", wheels, str(tmp_path / "second"), "--models", "tiny", "--python", "3.11", "--no-slides"
    )
    assert code == 0, text
    assert "5 packages for Python 3.11 on linux-x86_64, tiny:" in text
    assert "Copy it to the laptops, and run there: sh setup.sh" in text
    assert run("check", str(kit)) == (0, f"ready: the kit in {kit} is whole\n")
    monkeypatch.chdir(kit)
    assert run("check") == (0, f"ready: the kit in {kit} is whole\n")
    (kit / "setup.sh").unlink()
    code, text = run("check", ".", "--json")
    assert (code, json.loads(text)["ready"]) == (1, False)
    manifest = set_up(kit, listener, tmp_path / "installed", monkeypatch)
    code, text = run("models", str(kit))
    assert (code, read_manifest(home / KIT)) == (0, manifest_of(kit))
    check.remember(manifest)
    assert run("check") == (0, "ready: pophood 0.1.0 with tiny\n")
    shutil.rmtree(tmp_path / "installed")
    code, text = run("check")
    assert (code, text.startswith("not ready: the package ")) == (1, True)
    code, text = run("make", "out", "--offline")
    assert (code, "a kit is made with a network" in text) == (1, True)
    code, text = run("make", "out", "--models", ",")
    assert (code, "--models and --python take one name or more" in text) == (2, True)
