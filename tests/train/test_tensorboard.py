"""The event file of `--tensorboard`, read back by the framing of TensorFlow's records."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from pophood.errors import NotFound
from pophood.train.data import DataOptions
from pophood.train.events import Step
from pophood.train.report.tensorboard import FILES, Board, has_board, require_tensorboard
from pophood.train.run.new_model import from_scratch, recreate
from pophood.train.settings import TrainSettings
from pophood.train.tune import Tuning


def crc32c(data: bytes) -> int:
    """Return CRC-32C (RFC 3720), masked as in TensorFlow's records."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_back(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, str]]]:
    """Return tag -> step -> value, and the texts, of the only event file; no step occurs twice."""
    (place,) = folder.glob(FILES)
    data, at = place.read_bytes(), 0
    scalars: dict[str, dict[int, Any]] = {}
    texts: dict[str, dict[int, Any]] = {}
    while at < len(data):
        length, of_length = struct.unpack_from("<QI", data, at)
        body = data[at + 12 : at + 12 + length]
        (of_body,) = struct.unpack_from("<I", data, at + 12 + length)
        assert (crc32c(data[at : at + 8]), crc32c(body)) == (of_length, of_body)
        at += 16 + length
        event: Any = Event.FromString(body)
        for value in event.summary.value:
            is_text = value.HasField("tensor")
            found = (texts if is_text else scalars).setdefault(value.tag, {})
            assert event.step not in found, f"{value.tag}: step {event.step} is there twice"
            found[event.step] = value.tensor.string_val[0].decode() if is_text else value.simple_value
    return scalars, texts


def step(number: int, loss: float) -> dict[str, Any]:
    numbers = {"gradient": 0.5, "learning_rate": 1e-3, "tokens_per_second": 100.0, "seconds": float(number)}
    return {"event": "step", "step": number, "loss": loss, **numbers}


def test_numbers_and_texts_come_back(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.see(step(1, 9.0))  # before it begins nothing is written
    assert not has_board(tmp_path)
    board.begin([{"event": "started", "first_step": 0}, step(1, 3.0)])
    board.see(step(2, 2.5))
    board.see({"event": "evaluated", "step": 2, "loss": 2.75, "best": True})
    board.see({"event": "sampled", "step": 2, "prompt": "Dear *diary*,", "text": "\nit rains."})
    board.see({"event": "saved", "step": 2, "path": "checkpoint-2"})
    board.close()
    scalars, texts = read_back(tmp_path)
    assert scalars["loss/train"] == {1: 3.0, 2: 2.5}
    assert scalars["loss/validation"] == {2: 2.75}
    assert scalars["gradient_length"] == {1: 0.5, 2: 0.5}
    assert scalars["learning_rate"] == pytest.approx({1: 1e-3, 2: 1e-3})
    assert scalars["tokens_per_second"] == {1: 100.0, 2: 100.0}
    assert texts["sample/1/text_summary"] == {2: "    Dear *diary*,\n    it rains."}


def test_a_second_beginning_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first = Board(tmp_path)
    first.begin([step(1, 3.0), step(2, 2.0)])
    first.close()
    second = Board(tmp_path)
    second.begin([step(1, 3.0)])
    second.see(step(2, 2.5))
    second.close()
    assert read_back(tmp_path)[0]["loss/train"] == {1: 3.0, 2: 2.5}


def test_without_the_package_one_line_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(NotFound, match=r"needs tensorboardX, .*: \S+ -m pip install tensorboardX$"):
        require_tensorboard()


def test_a_run_that_is_stopped_and_gone_on_with_has_every_step_once(tmp_path: Path) -> None:
    """The run is killed after its checkpoint, so that steps are done again."""
    notes = tmp_path / "notes.txt"
    notes.write_text("The sun sets over the hills.\nNobody comes.\n\n" * 40, encoding="utf-8")
    settings = TrainSettings(method="full", steps=6, batch_size=2, length=64, evaluations=3)
    data, out = DataOptions(cache=tmp_path / "cache"), tmp_path / "out"
    model, prompts = from_scratch(notes, "gpt2-nano", threads=1), ("The sun", "Nobody")
    begun = Tuning(model, notes, out, settings, data, prompts=prompts, tensorboard=True)
    for event in begun:
        if isinstance(event, Step) and event.step == 5:
            begun.close()  # the last checkpoint is of an earlier step
            break
    assert max(read_back(out)[0]["loss/train"]) == 5
    resumed = Tuning(recreate(out, threads=1), notes, out, data_options=data, resume=True)
    assert resumed._state is not None
    assert 0 < int(resumed._state[1]["step"]) < 5
    losses = {event.step: event.loss for event in resumed if isinstance(event, Step)}
    scalars, texts = read_back(out)
    assert set(scalars["loss/train"]) == set(range(1, 7))
    assert {step: scalars["loss/train"][step] for step in losses} == pytest.approx(losses, rel=1e-6)
    assert set(scalars["learning_rate"]) == set(range(1, 7))
    assert {0, 6} <= set(scalars["loss/validation"])
    assert {"sample/1/text_summary", "sample/2/text_summary"} <= texts.keys()
