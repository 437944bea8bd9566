"""The content of a kit, where it comes from, and that it is whole or says so, wherever its making stopped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, BadInput, NotFound, PophoodError
from pophood.hub import Located
from pophood.kit import (
    PYTHONS,
    KitPlan,
    copying,
    kit_fault,
    make,
    make_kit,
    manifest_of,
    parse_python,
    platform_named,
)
from pophood.kit.manifest import MAKING, SUMS
from tests.conftest import ROOT
from tests.kit.conftest import Listener
from tests.kit.wheels import LINUX, QuickPip, own, wheel


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def requirements(kit: Path, python: str) -> set[str]:
    text = (kit / "requirements" / f"python-{python}.txt").read_text(encoding="utf-8")
    return {line.split("==")[0] for line in text.splitlines()}


def test_it_holds_everything_for_a_laptop(plan: KitPlan, tmp_path: Path, listener: Listener) -> None:
    out = tmp_path / "kit"
    manifest = make_kit(plan, out, listener.dialogue)
    assert names_in(out) == {
        "README.txt", "SHA256SUMS", "course", "install.py", "kit.json", "models", "requirements", "setup.sh",
        "wheels",
    }  # fmt: skip
    assert names_in(out / "wheels") == {
        "compiled-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "deeper-1.2-py3-none-any.whl",
        "everywhere-1.0-py3-none-any.whl", "only_old-1.0-py3-none-any.whl", "pip-99.0-py3-none-any.whl",
        "pophood-0.1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    }  # fmt: skip
    assert requirements(out, "3.11") == {"compiled", "deeper", "everywhere", "only-old", "pophood"}
    for line in (out / SUMS).read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    listed = {line.split("  ")[1] for line in (out / SUMS).read_text(encoding="utf-8").splitlines()}
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == listed | {SUMS}
    assert manifest == manifest_of(out)
    assert manifest.packages["3.11"]["deeper"] == "1.2"
    assert (manifest.glibc, manifest.pythons, manifest.extras) == (28, ("3.11",), ())
    assert kit_fault(out, listener.dialogue) is None
    first = json.loads((out / "course" / "talk.ipynb").read_text(encoding="utf-8"))["cells"]
    assert any('or "tiny"' in "".join(cell["source"]) for cell in first)
    texts = "".join((out / name).read_text(encoding="utf-8") for name in ("README.txt", "setup.sh"))
    assert "@" not in texts.replace("$@", "")
    assert "fetching 6 wheels" in listener.blocks


def test_markers_are_those_of_the_laptops_python(
    plan: KitPlan, tmp_path: Path, listener: Listener, quick_pip: QuickPip
) -> None:
    """pip evaluates them as the Python that runs it; `only-new` is needed from 3.13 on alone."""
    out = tmp_path / "kit"
    make_kit(replace(plan, pythons=((3, 11), (3, 12), (3, 13))), out, listener.dialogue)
    always = {"compiled", "deeper", "everywhere", "pophood"}
    assert requirements(out, "3.11") == always | {"only-old"}
    assert requirements(out, "3.12") == always
    assert requirements(out, "3.13") == always | {"only-new", "newer-still"}
    wheels = names_in(out / "wheels")
    assert {
        f"compiled-1.0-{tag}-{LINUX}.whl" for tag in ("cp311-cp311", "cp312-cp312", "cp313-cp313")
    } <= wheels
    assert {f"pophood-0.1.0-{tag}-{LINUX}.whl" for tag in ("cp311-cp311", "cp312-abi3")} <= wheels


def test_without_a_choice_it_is_for_every_python_that_a_wheel_fits(
    plan: KitPlan, tmp_path: Path, listener: Listener, quick_pip: QuickPip
) -> None:
    out = tmp_path / "kit"
    manifest = make_kit(replace(plan, pythons=None), out, listener.dialogue)
    assert manifest.pythons == ("3.11", "3.12", "3.13", "3.14")
    assert not [line for line in listener.said if "left out" in line]
    old, new = (own(tmp_path / tag, tags=[tag]) for tag in ("cp311-cp311", "cp312-abi3"))
    assert make_kit(replace(plan, pythons=None, wheels=(old,)), out, listener.dialogue).pythons == ("3.11",)
    assert "left out: Python 3.12, 3.13, 3.14: no wheel of pophood for it is here" in listener.said[-1]
    manifest = make_kit(replace(plan, pythons=None, wheels=(new,)), out, listener.dialogue)
    assert (manifest.pythons, names_in(out / "requirements")) == (
        ("3.12", "3.13", "3.14"),
        {f"python-{version}.txt" for version in ("3.12", "3.13", "3.14")},
    )
    assert kit_fault(out, listener.dialogue) is None


def test_the_pythons_are_those_that_pophood_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [line.rpartition(" :: ")[2] for line in project["classifiers"] if ":: Python :: 3." in line]
    assert [f"{major}.{minor}" for major, minor in PYTHONS] == named


def test_torch_is_a_build_for_processors(
    quick_pip: QuickPip, plan: KitPlan, index: Path, tmp_path: Path, listener: Listener
) -> None:
    plan = replace(plan, extras=("train",))
    wheel(index, "torch", "2.13.0", f"cp311-cp311-{LINUX}", ["nvidia-everything"])
    with pytest.raises(NotFound, match=r"no CPU build for Python 3\.11 .* is not a build for CPUs"):
        make_kit(plan, tmp_path / "kit", listener.dialogue)
    assert names_in(tmp_path / "kit") == {MAKING, "wheels"}
    (file,) = index.glob("torch-2*")
    file.unlink()
    wheel(index, "torch", "2.13.0+cpu", f"cp311-cp311-{LINUX}", ["torch-needs"])
    manifest = make_kit(plan, tmp_path / "kit", listener.dialogue)
    assert manifest.packages["3.11"]["torch"] == "2.13.0+cpu"
    assert {"torch", "torch-needs"} <= requirements(tmp_path / "kit", "3.11")
    shutil.rmtree(index)  # torch and all others are in the kit, and pip has no index any more
    with pytest.raises(NotFound, match="pip found no set of wheels"):
        make_kit(plan, tmp_path / "kit", listener.dialogue)
    assert kit_fault(tmp_path / "kit", listener.dialogue) is None, (
        "a whole kit stays whole until all is known"
    )


def test_another_run_fetches_only_what_is_missing(
    plan: KitPlan, tmp_path: Path, listener: Listener, quick_pip: QuickPip
) -> None:
    out, fetched = tmp_path / "kit", quick_pip.fetched
    make_kit(plan, out, listener.dialogue)
    assert fetched == ["compiled", "deeper", "everywhere", "only-old", "pip"]
    fetched.clear()
    (out / "wheels" / "deeper-1.2-py3-none-any.whl").write_bytes(b"damaged")
    (out / "wheels" / "older-1.0-py3-none-any.whl").write_bytes(b"of a run with other options")
    make_kit(plan, out, listener.dialogue)
    assert fetched == ["deeper"]
    assert not (out / "wheels" / "older-1.0-py3-none-any.whl").exists()
    assert kit_fault(out, listener.dialogue) is None


class Stops:
    """Replaces the operations that write to the disk; one of them, by its number, raises an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
        self.count = 0
        for module, name in (
            (make, "replace"), (make, "atomic_write"), (make, "fetch_wheel"), (make, "hash_of"),
            (copying, "sync_file"), (copying, "replace"), (copying, "hash_of"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, self._counted(getattr(module, name), at, error))

    def _counted(self, real: Callable[..., Any], at: int, error: BaseException) -> Callable[..., Any]:
        def operation(*words: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == at:
                raise error
            return real(*words, **named)

        return operation


@pytest.mark.parametrize("kind", ["full disk", "Ctrl-C"])
def test_stopped_anywhere_it_says_so_and_goes_on(
    kind: str, plan: KitPlan, tmp_path: Path, listener: Listener, quick_pip: QuickPip
) -> None:
    """Stop at one operation after the other, in one and the same folder, until a run gets through."""
    out, faults = tmp_path / "kit", set()
    error = KeyboardInterrupt() if kind == "Ctrl-C" else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    at = 1
    while True:
        with pytest.MonkeyPatch.context() as patch:
            Stops(patch, at, error)
            try:
                make_kit(plan, out, listener.dialogue)
                break
            except KeyboardInterrupt:
                assert kind == "Ctrl-C"
            except PophoodError as refused:
                assert "the disk is full" in str(refused)
        fault = kit_fault(out, listener.dialogue)
        assert fault is not None
        faults.add(fault)
        half = [path for path in (out / "wheels").glob("*") if path.stat().st_size == 0]
        assert not half
        at += 7
    assert at > 28
    assert faults == {f"{out}: this kit is not finished: run the `pophood kit` that made it again"}
    assert kit_fault(out, listener.dialogue) is None
    assert not (out / MAKING).exists()


def test_what_cannot_be_is_refused_by_name(plan: KitPlan, tmp_path: Path, listener: Listener) -> None:
    def refused(kind: type[PophoodError], words: str, **changes: Any) -> None:
        with pytest.raises(kind, match=words):
            make_kit(replace(plan, **changes), tmp_path / "kit", listener.dialogue)

    for name in ("windows-x86_64", "macos-arm64", "linux-aarch64"):
        with pytest.raises(
            BadInput, match=rf"{name}: pophood has no wheel for this platform yet: there is linux"
        ):
            platform_named(name)
    with pytest.raises(BadInput, match="'amiga' is not a platform: there is linux-x86_64"):
        platform_named("amiga")
    for text in ("3", "3.x", "3.11.2", ""):
        with pytest.raises(BadInput, match="is not a version such as"):
            parse_python(text)
    with pytest.raises(BadInput, match=r"--python 3\.10: pophood needs Python 3\.11 or newer"):
        parse_python("3.10")
    refused(BadInput, "--extra magic: pophood has no such extra", extras=("magic",))
    refused(NotFound, "this pophood runs from a checkout, so its wheel must be named", wheels=())
    refused(NotFound, "there is no wheel: build pophood's with `make wheel`", wheels=(tmp_path / "nowhere",))
    others = wheel(tmp_path / "others", "numpy")
    refused(BadInput, "--wheel takes wheels of pophood and torch; got numpy-1.0", wheels=(others,))
    old = own(tmp_path / "old", "0.0.1")
    refused(BadFile, r"a wheel of pophood 0\.0\.1; wanted 0\.1\.0", wheels=(old,))
    new = own(tmp_path / "new", tags=["cp312-abi3"])
    refused(NotFound, r"cp312-abi3-.* is not for Python 3\.11 on linux-x86_64: add one", wheels=(new,))
    plain = wheel(tmp_path / "plain", "pophood", "0.1.0", "cp311-cp311-linux_x86_64")
    refused(NotFound, "it must be manylinux", wheels=(plain,))
    nameless = tmp_path / "x.whl"
    nameless.write_bytes(b"")
    refused(BadFile, "not the name of a wheel", wheels=(nameless,))
    by_path = Located("./tiny", tmp_path)
    refused(BadInput, "a kit takes models by name", models=(by_path,))


def test_a_folder_with_something_else_is_left_alone(
    plan: KitPlan, tmp_path: Path, listener: Listener
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(BadInput, match="exists, and is no kit: name another place"):
        make_kit(plan, out, listener.dialogue)
    assert names_in(out) == {"thesis.txt"}


def test_models_that_do_not_fit_are_refused_before_the_work(
    plan: KitPlan,
    tmp_path: Path,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    quick_pip: QuickPip,
) -> None:
    monkeypatch.setattr(make, "free_disk", lambda path: 1_000)
    with pytest.raises(PophoodError, match="the disk is too full: the models take"):
        make_kit(plan, tmp_path / "kit", listener.dialogue)
