"""The target of an export is checked before any work; errors name the typed path and the full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pophood import hub
from pophood.adapters.adapter import Adapter
from pophood.cli.app import pophood
from pophood.errors import BadInput, PophoodError
from pophood.export import job, staging
from pophood.export.adapter_writers import write_adapter
from pophood.export.job import export_adapter, export_model
from pophood.export.proof import prove_model
from pophood.model.bundle import Bundle, open_bundle
from pophood.system import disk_of
from tests.export.adapters import random_adapter
from tests.tiny import tiny_folder

SIZES: dict[str, Any] = {"n_layer": 1, "n_embd": 32, "head_dim": 8, "n_inner": 32, "n_positions": 16}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change into the test's own folder, so that paths are relative, as a user types them."""
    monkeypatch.chdir(tmp_path)
    tiny_folder(Path("base"), "llama", **SIZES)
    Path("file.txt").write_text("mine", encoding="utf-8")
    Path("full").mkdir()
    Path("full/letter.txt").write_text("mine", encoding="utf-8")
    Path("mine.gguf").write_bytes(b"mine")


@pytest.fixture
def bundle() -> Bundle:
    return open_bundle("base")


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(pophood, ["export", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


PLACES = [
    ("file.txt", "file.txt: is a file; wanted a folder"),
    ("file.txt/out", "file.txt/out: file.txt is a file, not a folder"),
    ("full", "full: exists, but is not an export of pophood: name another place"),
    ("base", "base: exists, but"),
    ("mine.gguf", "mine.gguf: exists, but is not an export of pophood"),
    ("nowhere/x.gguf", "nowhere/x.gguf: the folder nowhere does not exist: make it, or name another"),
    ("file.txt/x.gguf", "file.txt/x.gguf: file.txt is a file, not a folder"),
    ("x.gguf/", "x.gguf/: names a folder; wanted a file"),
    (
        "model.safetensors",
        "model.safetensors: a file .safetensors is not written alone; wanted the name of a new",
    ),
    ("pytorch_model.bin", "pytorch_model.bin: a file .bin is not written alone"),
    ("x.ONNX", "x.ONNX: a file .ONNX is not written alone"),
    ("", "'' is not a name for a folder"),
]


@pytest.mark.parametrize(("to", "words"), PLACES)
@pytest.mark.parametrize("more", [[], ["--ollama"], ["--peft"]], ids=["model", "ollama", "peft"])
def test_a_place_that_will_not_do_is_refused_first(
    to: str, words: str, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def located(*args: object, **kwargs: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(hub, "locate", located)
    before = files()
    code, out, err = run("base", "--to", to, *more)
    assert (code, out) == (2, "")
    assert f"pophood: {words}" in err, err
    assert files() == before


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize("to", ["closed/out", "closed/x.gguf", "closed"])
def test_a_folder_that_may_not_be_written_to(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("closed").mkdir()

    def denied(path: object, *args: object, **kwargs: object) -> int:
        if "closed" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    real = os.open
    monkeypatch.setattr(os, "open", denied)  # the tests may run as root, whom no permission stops
    code, _, err = run("base", "--to", to)
    assert code != 0
    assert f"pophood: {to}: cannot be written (Permission denied): check its permissions" in err, err


def test_types_are_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "locate", lambda *args, **kwargs: pytest.fail("the work began"))
    for words, message in (
        (["--to", "out", "--type", "q8_0"], "type 'q8_0' cannot be written into a folder"),
        (["--to", "x.gguf", "--type", "q5_0"], "choose one of f32, f16, bf16, q8_0, q4_0, q4_1"),
        (["--to", "out", "--peft", "--type", "f16"], "--peft writes an adapter in f32: leave out --type"),
    ):
        code, _, err = run("base", *words)
        assert (code, message in err) == (2, True), err


@pytest.mark.parametrize("to", ["out", "x.gguf", "./deep/er/out", "out/../other", "X.GGUF"])
def test_places_that_will_do(to: str, bundle: Bundle) -> None:
    Path("out").mkdir()
    code, out, err = run("base", "--to", to, "--threads", 1)
    assert code == 0, err
    assert str(Path(to).absolute()) in out
    assert open_bundle(to).config.n_params == bundle.config.n_params
    assert not [path for path in Path().rglob(".*") if path.name.startswith(".")]


OUT = ("out", "out.gguf", "./out", "full/out.gguf")


def full_disk(*args: object, **kwargs: object) -> None:
    """Raise the system's error for a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("to", OUT)
def test_a_disk_without_room_names_the_typed_path_and_the_disk(
    to: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pophood.formats.safetensors_write.free_disk", lambda path: 1000)
    before = files()
    with pytest.raises(PophoodError) as caught:
        export_model(bundle, to, threads=1)
    message = str(caught.value)
    name = to.removeprefix("./")
    assert message.startswith((f"{name}: the disk is full", f"{name}/model.safetensors: the disk is full"))
    assert f"free 1,000 bytes on {disk_of(Path.cwd())}: free some space there" in message
    assert ".tmp" not in message and "POPHOOD_HOME" not in message
    assert files() == before


@pytest.mark.parametrize("to", OUT)
@pytest.mark.parametrize("peft", [False, True], ids=["model", "peft"])
def test_the_kernels_own_error_names_the_typed_path(
    to: str, peft: bool, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = random_adapter(bundle.config)
    before = files()
    for fail in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os if fail == "fsync" else Path, fail, full_disk)
            with pytest.raises(PophoodError, match="the disk is full: needed") as caught:
                if peft:
                    export_adapter(bundle.config, adapter, to)
                else:
                    export_model(bundle, to, threads=1)
        message = str(caught.value)
        assert message.startswith(to.removeprefix("./")), message
        assert ".tmp" not in message and "POPHOOD_HOME" not in message, message
        assert f"on {disk_of(Path.cwd())}:" in message
        assert files() == before


@pytest.mark.parametrize("to", ["out", "out.gguf"])
def test_a_failed_proof_names_the_typed_path(
    to: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(path: Path, *args: object) -> object:
        weights = path / "model.safetensors" if path.is_dir() else path
        data = bytearray(weights.read_bytes())
        data[-100] ^= 1
        weights.write_bytes(data)
        return prove_model(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "prove_model", spoiled)
    with pytest.raises(PophoodError, match=rf"^{to}(/model\.safetensors)?: read back, the export is wrong"):
        export_model(bundle, to, threads=1)


def test_an_adapter_is_not_replaced_by_what_is_made_of_it(bundle: Bundle) -> None:
    adapter = random_adapter(bundle.config)
    export_adapter(bundle.config, Adapter("a", 4, 6.0, 1.5, adapter.targets, {"name": "base"}), "tuned")
    export_adapter(bundle.config, adapter, "tuned.gguf")
    before = files()
    for words in (
        ["base", "--adapter", "tuned", "--to", "tuned"],
        ["base", "--adapter", "tuned:0.5", "--to", "./tuned/"],
        ["base", "--adapter", "tuned/adapter_model.safetensors", "--to", "tuned"],
        ["base", "--adapter", "tuned.gguf", "--to", "tuned.gguf"],
        ["tuned", "--to", "tuned"],
    ):
        code, _, err = run(*words)
        assert (code, "is the adapter that is to be exported: name another place" in err) == (2, True), err
    assert files() == before


def test_an_older_export_is_replaced(bundle: Bundle) -> None:
    for to in ("out", "out.gguf"):
        export_model(bundle, to, threads=1)
        staging.check_destination(to)
        export_model(bundle, to, "f16", threads=1)
        assert open_bundle(to).weights.stored_type("embed.token") == "F16"
    write_adapter("tuned", random_adapter(bundle.config), bundle.config)
    with pytest.raises(BadInput, match=r"^tuned: exists, but is not an export of pophood"):
        staging.check_destination("tuned")
