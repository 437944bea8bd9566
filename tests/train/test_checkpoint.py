"""Checkpoints: which ones stay, which are skipped or refused, and with which messages."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pophood.errors import BadFile, BadInput, EngineError, NotFound, PophoodError, Unsupported
from pophood.formats.safetensors_write import stream_safetensors
from pophood.train.checkpoint.manifest import NAME, VERSION, Manifest, read_manifest
from pophood.train.checkpoint.resume import environment_differences, machine, settings_of
from pophood.train.checkpoint.save_load import best, latest, load, save
from pophood.train.settings import LoraSettings, TrainSettings
from tests.conftest import ROOT
from tests.train.hashes import saved_hash, state_hash
from tests.train.small import Case, trainer_of

OLD = ROOT / "tests" / "data" / "checkpoints"


def state(
    step: int, loss: float | None = None, **tensors: torch.Tensor
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    generator = torch.Generator().manual_seed(step)
    given = {
        "trained.a": torch.randn(3, 5, generator=generator),
        "mean.a": torch.randn(3, 5, generator=generator),
        "square.a": torch.rand(3, 5, generator=generator),
        "random": generator.get_state(),
    }
    return given | tensors, {"step": step, "validation_loss": loss, "settings": {}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint16",
        "bool",
    ],
)
def test_every_type_comes_back_bit_by_bit(dtype: str, tmp_path: Path) -> None:
    values = (torch.arange(24) % 7 - 3).reshape(4, 6)
    tensor = (values.abs() if dtype.startswith("u") else values).to(getattr(torch, dtype)).T
    given = state(1, x=tensor, scalar=tensor[0, 0], empty=tensor[:0])
    tensors, facts = load(save(tmp_path, given))
    assert set(tensors) == set(given[0])
    for name, wanted in given[0].items():
        assert (tensors[name].dtype, tensors[name].shape) == (wanted.dtype, wanted.shape)
        assert torch.equal(tensors[name], wanted)
    assert facts == given[1] | {"machine": machine()}


def test_a_loaded_tensor_is_memory_of_its_own(tmp_path: Path) -> None:
    path = save(tmp_path, state(1))
    tensors, _ = load(path)
    shutil.rmtree(path)
    tensors["trained.a"].zero_()
    assert torch.equal(tensors["trained.a"], state(1)[0]["trained.a"])


def test_equal_hashes_mean_equal_bits(tmp_path: Path) -> None:
    given = state(1)
    assert saved_hash(save(tmp_path, given)) == state_hash(given) == state_hash(load(latest_of(tmp_path)))
    for name in ("trained.a", "mean.a", "square.a", "random"):
        other = {**given[0], name: given[0][name].clone()}
        other[name].view(-1).view(torch.uint8)[3] ^= 1  # one bit
        assert state_hash((other, given[1])) != state_hash(given)
    assert state_hash((dict(reversed(given[0].items())), {"step": 9})) == state_hash(given)


def latest_of(folder: Path) -> Path:
    path = latest(folder, pytest.fail)
    assert path is not None
    return path


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    seen = []
    for step, loss in ((10, 3.0), (20, 2.0), (30, 2.5), (40, None), (50, 2.25), (60, 1.5), (70, 1.75)):
        save(tmp_path, state(step, loss), keep=3)
        found = best(tmp_path)
        assert found is not None
        seen.append(([int(name[-2:]) for name in names(tmp_path)], int(found.name[-2:])))
    assert [kept for kept, _ in seen] == [
        [10],
        [10, 20],
        [10, 20, 30],
        [20, 30, 40],
        [20, 40, 50],
        [40, 50, 60],
        [50, 60, 70],
    ]
    assert [lowest for _, lowest in seen] == [10, 20, 20, 20, 20, 60, 60]
    with pytest.raises(BadInput, match="keep must be at least 2"):
        save(tmp_path, state(80), keep=1)


def test_a_run_that_went_back_goes_on_from_its_own_last(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, state(step), keep=9)
    save(tmp_path, state(15), keep=9)
    assert latest_of(tmp_path).name == "checkpoint-000015"
    save(tmp_path, state(20, x=torch.ones(1)), keep=9)  # the same step, other contents
    assert latest_of(tmp_path).name == "checkpoint-000020-2"
    assert "x" in load(latest_of(tmp_path))[0]
    assert "checkpoint-000020" not in names(tmp_path)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    for name in ("checkpoint-500", "checkpoint-000001", "notes.txt"):
        (tmp_path / name).mkdir()
    for step in (10, 20, 30):
        save(tmp_path, state(step), keep=2)
    kept = ["checkpoint-000001", "checkpoint-000020", "checkpoint-000030", "checkpoint-500", "notes.txt"]
    assert names(tmp_path) == kept


def test_no_folder_or_nothing_in_it(tmp_path: Path) -> None:
    assert latest(tmp_path / "none", pytest.fail) is None
    assert latest(tmp_path, pytest.fail) is None
    assert best(tmp_path) is None
    with pytest.raises(NotFound, match=r"no checkpoint \(checkpoint.json is missing\)"):
        load(tmp_path / "none")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["trained.a", "mean.a"])
def test_no_checkpoint_holds_what_is_not_a_number(name: str, value: float, tmp_path: Path) -> None:
    save(tmp_path, state(10))
    given = state(20)
    given[0][name][1, 2] = value
    with pytest.raises(EngineError, match=rf"step 20: {name} holds a value that is not finite"):
        save(tmp_path, given)
    assert names(tmp_path) == ["checkpoint-000010"]


# Damage -----------------------------------------------------------------------------------------------


def flip(path: Path, at: float = 0.9) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"x")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": lambda folder: flip(folder / "trained.safetensors"),
    "a bit of a header": lambda folder: flip(folder / "optimizer.safetensors", 0.1),
    "a bit of the rest": lambda folder: flip(folder / "rest.safetensors"),
    "a bit of the facts": lambda folder: flip(folder / NAME, 0.5),
    "a file cut short": lambda folder: cut(folder / "optimizer.safetensors"),
    "a file missing": lambda folder: (folder / "rest.safetensors").unlink(),
    "an empty file": lambda folder: (folder / "trained.safetensors").write_bytes(b""),
    "facts cut short": lambda folder: cut(folder / NAME),
    "facts empty": lambda folder: (folder / NAME).write_bytes(b""),
    "facts missing": lambda folder: (folder / NAME).unlink(),
    "no folder": replace_by_file,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_aloud(damage: str, tmp_path: Path) -> None:
    first, second = save(tmp_path, state(10)), save(tmp_path, state(20))
    DAMAGES[damage](second)
    said: list[str] = []
    assert latest(tmp_path, said.append) == first
    assert len(said) == 1
    assert second.name in said[0]
    assert "skipped" in said[0] or "trying the one before it" in said[0]
    with pytest.raises((BadFile, NotFound)):
        load(second)
    third = save(tmp_path, state(20))  # the run continues and reaches the step again
    assert latest(tmp_path, said.append) == third


def test_half_written_ones_are_passed_over_and_cleared(tmp_path: Path) -> None:
    path = save(tmp_path, state(10))
    shutil.copytree(path, tmp_path / ".checkpoint-000020.4711-0a1b2c3d.tmp")
    said: list[str] = []
    assert latest(tmp_path, said.append) == path
    assert said == [".checkpoint-000020.4711-0a1b2c3d.tmp: skipped, because its save was killed"]
    save(tmp_path, state(30))
    assert names(tmp_path) == ["checkpoint-000010", "checkpoint-000030"]


def lie(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change checkpoint.json and correct its own hash."""
    from pophood.train.checkpoint import manifest

    fields = json.loads((folder / NAME).read_text(encoding="utf-8"))
    change(fields)
    fields.pop("check", None)
    fields["check"] = manifest._check(fields)
    (folder / NAME).write_text(json.dumps(fields), encoding="utf-8")


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "not a checkpoint of pophood": lambda f: f.update(format="x"),
    "has version 'True'": lambda f: f.update(version=True),
    "has version '0'": lambda f: f.update(version=0),
    "has serial": lambda f: f.update(serial=-1),
    "names no step": lambda f: f["facts"].update(step="7"),
    "lists no files": lambda f: f.update(files=[]),
    r"names the file '\.\./x\.safetensors'": lambda f: f["files"].update({"../x.safetensors": {}}),
    "has no length and SHA-256": lambda f: f["files"]["trained.safetensors"].update(sha256="A" * 64),
    "has 0 bytes|has [0-9,]+ bytes, wanted 0": lambda f: f["files"]["trained.safetensors"].update(bytes=0),
    "its SHA-256 is": lambda f: f["files"]["trained.safetensors"].update(sha256="a" * 64),
}


@pytest.mark.parametrize("words", LIES)
def test_a_lying_one_is_refused_by_name(words: str, tmp_path: Path) -> None:
    path = save(tmp_path, state(10))
    lie(path, LIES[words])
    with pytest.raises(BadFile, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_one_of_a_later_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = save(tmp_path, state(10))
    lie(path, lambda fields: fields.update(version=VERSION + 1))
    with pytest.raises(Unsupported, match=r"has version 2, written by a later pophood.*update pophood"):
        load(path)
    save(tmp_path, state(20), keep=2)
    save(tmp_path, state(30), keep=2)
    assert path.exists()  # it may be somebody's


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, state(10))
    shutil.copy(path / "trained.safetensors", path / "rest.safetensors")
    lie(path, lambda f: f["files"].update({"rest.safetensors": f["files"]["trained.safetensors"]}))
    with pytest.raises(BadFile, match=r"'trained\.a' of F32 occurs twice"):
        load(path)


def test_facts_that_are_not_json_are_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, (state(1)[0], {"step": 1, "best": float("inf")}))
    assert not list(tmp_path.iterdir())


# Elsewhere and later ----------------------------------------------------------------------------------


def test_another_machine_torch_or_thread_count_is_said() -> None:
    here = machine()
    assert environment_differences({"machine": here}) == []
    known = {"torch", "threads", "processes", "processor", "instructions", "system", "numpy"}
    assert known == set(here)
    for name in here:
        (line,) = environment_differences({"machine": {**here, name: "other"}})
        assert line.startswith(f"{name}: other in the checkpoint, {here[name]} here")
        assert "bits may differ" in line
    assert len(environment_differences({})) == 1


def test_settings_come_back(tmp_path: Path) -> None:
    case = Case("lora", "llama", dropout=0.1, accumulation=2)
    trainer = trainer_of(case, tmp_path, out=tmp_path / "out")
    list(trainer.run())
    _, facts = load(latest_of(tmp_path / "out"))
    assert settings_of(facts) == case.settings()
    del facts["settings"]["recompute"]
    assert settings_of(facts) == case.settings()
    with pytest.raises(Unsupported, match=r"does not know: 'lora\.x, y'"):
        settings_of({"settings": {"lora": {"x": 1}, "y": 2}})
    for damaged in ({}, {"settings": 1}, {"settings": {"lora": 3}}, {"settings": {"batch_size": "x"}}):
        with pytest.raises(BadFile):
            settings_of(damaged)
    assert settings_of({"settings": {"lora": {"rank": 2}}}) == TrainSettings(lora=LoraSettings(rank=2))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    lora, full = Case("lora", "llama"), Case(family="llama")
    trainer = trainer_of(lora, tmp_path, out=tmp_path / "out", steps=1)
    list(trainer.run())
    tensors, facts = load(latest_of(tmp_path / "out"))
    with pytest.raises(BadInput, match="other tensors than this run trains"):
        trainer_of(full, tmp_path).restore(tensors, facts)
    with pytest.raises(
        BadInput, match=r"lora_a is torch.float32 \(4, 32\), this run's torch.float32 \(2, 32\)"
    ):
        other = trainer_of(Case("lora", "llama", rank=2), tmp_path)
        other.restore(tensors, facts)
    with pytest.raises(BadInput, match="lacks epoch"):
        trainer_of(lora, tmp_path).restore(tensors, {k: v for k, v in facts.items() if k != "epoch"})


def test_files_depend_on_their_tensors_alone(tmp_path: Path) -> None:
    """`state_hash` hashes the bytes that a file would have, without writing one."""
    one, two = (save(tmp_path / name, state(7, 0.5)) for name in ("one", "two"))
    for name in read_manifest(one).files:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    pieces: list[bytes] = []
    stream_safetensors(lambda data: pieces.append(bytes(data)), {"x": ("U8", torch.arange(9).byte().numpy())})
    assert b"".join(pieces)[-9:] == bytes(range(9))


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_old_ones_still_load(version: int, tmp_path: Path) -> None:
    """There is a checkpoint for each version of the format, stored as text: file name -> base64."""
    kept = json.loads((OLD / f"version-{version}.json").read_text(encoding="utf-8"))
    path = tmp_path / "checkpoint-000003"
    path.mkdir()
    for name, data in kept["files"].items():
        (path / name).write_bytes(base64.b64decode(data))
    assert latest_of(tmp_path) == path
    tensors, facts = load(path)
    assert state_hash((tensors, facts)) == saved_hash(path) == kept["hash"]
    settings = settings_of(facts)
    assert (settings.method, settings.steps, facts["step"]) == ("lora", 6, 3)
    trainer = trainer_of(Case("lora", "llama", rank=1, steps=6), tmp_path)
    trainer.restore(tensors, facts)
    assert state_hash(trainer.state()) == kept["hash"]
    list(trainer.run())
    assert trainer.step == 6


def test_the_manifest_reads_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(Manifest(3, {"step": 5, "é": [1.5, None]}, {}).encode())
    assert read_manifest(tmp_path) == Manifest(3, {"step": 5, "é": [1.5, None]}, {})
    with pytest.raises(PophoodError):
        read_manifest(tmp_path / NAME)
