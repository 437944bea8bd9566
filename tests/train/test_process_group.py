"""Two processes learn the same as one: sharded or not, stopped or not, on one machine or two."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pophood
from pophood.adapters.peft import read_adapter
from pophood.errors import BadInput
from pophood.train.checkpoint.resume import environment_differences
from pophood.train.checkpoint.save_load import latest, load
from pophood.train.data import DataOptions
from pophood.train.defaults import for_model
from pophood.train.distributed.process_group import LOCAL, GlooGroup, ProcessGroup
from pophood.train.events import Evaluated, Finished, Step
from pophood.train.loop.trainer import Trainer
from pophood.train.settings import TrainSettings
from pophood.train.tune import Tuning
from tests import processes
from tests.conftest import ROOT
from tests.tiny import tiny_folder
from tests.train.hashes import state_hash
from tests.train.small import Case, trainer_of

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not torch.distributed.is_available(), reason="torch without gloo"
)
Fields = dict[str, Any]
FULL: Fields = {"steps": 4}
LORA: Fields = {"method": "lora", "family": "llama", "steps": 4}
ACCUMULATED = LORA | {"accumulation": 2, "steps": 3}
DROPPING: Fields = {"steps": 6, "dropout": 0.1, "accumulation": 2}
SHARD: Fields = {"shard": True}
RUNS: dict[str, Fields] = {
    "full": FULL,
    "lora": LORA,
    "full shard": FULL | SHARD,
    "lora shard": LORA | SHARD,
    "recomputed shard": FULL | SHARD | {"recompute": True},
    "accumulated": ACCUMULATED,
    "accumulated shard": ACCUMULATED | SHARD,
    "whole": DROPPING,
    "cut": DROPPING | {"stop": 12, "asks": 1},
    "cut, gone on": DROPPING | {"go_on": True, "folder": "cut"},
    "cut shard": FULL | SHARD | {"stop": 9, "asks": 1},
    "cut shard, gone on": FULL | SHARD | {"go_on": True, "folder": "cut shard"},
    "no number": FULL | {"poison": 3, "asks": 1},
}
Told = dict[str, Any]


@contextmanager
def torchrun(*command: str, **options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `command` under torchrun, by default in two processes, over the loopback device."""
    wanted = {"nproc_per_node": "2", "rdzv_endpoint": "127.0.0.1:0"} | options
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    run = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--local-addr=127.0.0.1"]
    with processes.started(
        [*run, *flags, "-m", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must succeed, and return its stdout."""
    out, errors = process.communicate(timeout=processes.HANG_SECONDS)
    assert process.returncode == 0, errors[-4_000:]
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Told]]:
    """The folder of all runs, and the results of each rank."""
    out = tmp_path_factory.mktemp("two")
    runs = {name: {"folder": name} | fields for name, fields in RUNS.items()}
    with torchrun("tests.train.ranks", str(data), str(out), json.dumps(runs)) as process:
        ended(process)
    return out, [json.loads(out.with_name(f"{out.name}.{rank}.json").read_text()) for rank in (0, 1)]


def losses(told: Told, kind: str = "step") -> list[float]:
    return [event["loss"] for event in told["events"] if event["event"] == kind]


def alone(fields: dict[str, Any], data: Path, **changes: Any) -> tuple[Trainer, list[float], list[float]]:
    """Run the same in this process; return its trainer, and the losses of steps and evaluations."""
    trainer = trainer_of(Case(**fields), data, precision="f32", **changes)
    events = list(trainer.run())
    steps = [event.loss for event in events if isinstance(event, Step)]
    return trainer, steps, [event.loss for event in events if isinstance(event, Evaluated)]


def apart(ours: Any, theirs: Any, first: Any) -> float:
    """Return the distance of two states' weights, relative to the distance from the start."""
    names = [name for name in theirs if name.startswith("trained.")]
    gap = sum(float((ours[name] - theirs[name]).square().sum()) for name in names)
    way = sum(float((theirs[name] - first[name]).square().sum()) for name in names)
    return float((gap / way) ** 0.5)


# What is learned --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RUNS][:7])
@pytest.mark.parametrize("how", ["batches", "rows"])
def test_two_learn_what_one_learns_from_as_many_rows(
    name: str, how: str, data: Path, two: tuple[Path, list[Told]]
) -> None:
    out, (first, second) = two
    fields = {key: value for key, value in RUNS[name].items() if key not in ("shard", "recompute")}
    changes = {"batch_size": 6} if how == "rows" else {"accumulation": 2 * fields.get("accumulation", 1)}
    trainer, steps, evaluations = alone(fields, data, **changes)
    assert losses(first[name]) == pytest.approx(steps, rel=1e-5)
    assert losses(first[name], "evaluated") == pytest.approx(evaluations, rel=1e-5)
    for kind in ("step", "evaluated"):
        assert losses(second[name], kind) == losses(first[name], kind), "all ranks decide by the same numbers"
    start = trainer_of(Case(**fields), data, precision="f32").state()[0]
    ours, theirs = torch.load(out / name / "state.pt"), trainer.state()[0]
    assert apart(ours, theirs, start) < 1e-2
    assert {*ours} == {*theirs, "random.1"}


def test_a_stopped_run_goes_on_to_the_same_bits(two: tuple[Path, list[Told]]) -> None:
    """Rank 1 requests the stop, within a step whose dropout differs between the ranks."""
    _, (first, second) = two
    for told in (first, second):
        assert told["cut"]["events"][-1]["reason"] == "stopped"
        assert 1 <= told["cut"]["events"][-1]["step"] <= 4
        assert told["cut shard"]["events"][-1]["reason"] == "stopped"
        assert 1 <= told["cut shard"]["events"][-1]["step"] <= 4
    assert first["cut, gone on"]["hash"] == first["whole"]["hash"]
    assert first["cut shard, gone on"]["hash"] == first["full shard"]["hash"]
    assert losses(first["cut"]) + losses(first["cut, gone on"]) == losses(first["whole"])


def test_one_goes_on_where_two_were_stopped(data: Path, two: tuple[Path, list[Told]]) -> None:
    out, (first, _) = two
    checkpoints = sorted((out / "cut").glob("checkpoint-*"))
    tensors, facts = load(checkpoints[0])
    assert "random.1" in tensors
    assert any(
        line.startswith("processes: 2 in the checkpoint, 1 here") for line in environment_differences(facts)
    )
    trainer = trainer_of(Case(**DROPPING), data, precision="f32")
    trainer.restore(tensors, facts)
    events = list(trainer.run())
    assert isinstance(events[-1], Finished)
    assert events[-1].step == 6
    last = losses(first["whole"], "evaluated")[-1]
    assert trainer.loss == pytest.approx(last, abs=0.2)


def test_a_loss_that_is_no_number_on_one_rank_ends_all(data: Path, two: tuple[Path, list[Told]]) -> None:
    out, (first, second) = two
    kind, text = first["no number"]["error"]
    assert kind == "EngineError"
    assert text.startswith("step 3: the loss is nan; it read ")
    assert second["no number"]["error"] == ["RaisedOnRankZero", text]
    order = trainer_of(Case(**FULL), data).train
    theirs = order.batch(0, 5)  # the second batch of the third step
    assert all(source in text for source in theirs.sources[:3])
    path = latest(out / "no number", pytest.fail)
    assert path is not None
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in load(path)[0].values())


def test_two_nodes_are_as_two_processes(data: Path, tmp_path: Path, two: tuple[Path, list[Told]]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ("tests.train.ranks", str(data), str(tmp_path / "nodes"), json.dumps({"lora": LORA}))
    with ExitStack() as stack:
        options = {"nproc_per_node": "1", "nnodes": "2", "rdzv_endpoint": f"127.0.0.1:{port}"}
        nodes = [stack.enter_context(torchrun(*command, **options)) for _ in range(2)]
        for node in nodes:
            ended(node)
    told = [json.loads((tmp_path / f"nodes.{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0]["lora"]["hash"] == two[1][0]["lora"]["hash"]


# The command ------------------------------------------------------------------------------------------


def test_sigterm_saves_and_one_process_goes_on(tmp_path: Path) -> None:
    """Under torchrun rank 0 alone prints and writes, and a stop of any rank stops all."""
    tiny_folder(tmp_path / "llama", "llama")
    notes, out = tmp_path / "notes.txt", tmp_path / "out"
    notes.write_text("The sun sets over the hills.\nNobody comes, and the stones wait.\n\n" * 60, "utf-8")
    sizes = ["--steps", "100000", "--evaluations", "2", "--length", "32", "--batch-size", "2"]
    where = (str(notes), "-m", str(tmp_path / "llama"), "-o", str(out))
    with torchrun("pophood", "tune", *where, *sizes, "--threads", "2") as run:
        wait_for(out / "events.jsonl", '"step": 3,')
        run.send_signal(signal.SIGTERM)
        said, errors = run.communicate(timeout=processes.HANG_SECONDS)
    assert said.count("Written to") == 1
    assert "torchrun --nproc-per-node 2 -m pophood tune " in said and "--nnodes" not in said
    assert errors.count("validation: ") == 1
    assert "stopped; the weights so far are kept" in errors
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["reason"] == "stopped"
    assert read_adapter(out).targets
    events = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == sorted(set(steps)), "each is written once"
    assert events[0]["tokens_per_step"] == 2 * 2 * 32
    lm = pophood.load(tmp_path / "llama", threads=1)
    tuning = Tuning(lm, notes, out, None, DataOptions(), resume=True)
    assert any(line.startswith("processes: 2 in the checkpoint, 1 here") for line in tuning.messages)
    tuning.setup = replace(tuning.setup, settings=replace(tuning.settings, steps=steps[-1] + 2))
    trainer, _ = tuning.calibrate()
    assert trainer.step == steps[-1]


@pytest.mark.parametrize("more", [("--base", "q8"), ("--method", "last", "--last-blocks", "1")])
def test_two_tune_what_one_tunes(tmp_path: Path, more: tuple[str, ...]) -> None:
    """With an 8-bit base, and with method last, whose states several processes do not cache."""
    tiny_folder(tmp_path / "llama", "llama")
    notes = tmp_path / "notes.txt"
    notes.write_text("The sun sets over the hills.\nNobody comes, and the stones wait.\n\n" * 60, "utf-8")
    sizes = ["--steps", "3", "--length", "32", "--batch-size", "2", "--precision", "f32", "--patience", "0"]
    command = ("pophood", "tune", str(notes), "-m", str(tmp_path / "llama"), *sizes, *more, "-o")
    with torchrun(*command, str(tmp_path / "two"), "--threads", "2") as run:
        ended(run)
    one = [sys.executable, "-m", *command, str(tmp_path / "one"), "--threads", "1", "--accumulation", "2"]
    processes.run(one, cwd=ROOT, check=True, capture_output=True)
    for kind in ("step", "evaluated"):
        two_, one_ = (
            [
                event["loss"]
                for line in (tmp_path / name / "events.jsonl").read_text(encoding="utf-8").splitlines()
                if (event := json.loads(line))["event"] == kind
            ]
            for name in ("two", "one")
        )
        assert len(two_) >= 2
        assert two_ == pytest.approx(one_, rel=1e-5)


def test_a_sharded_base_is_not_in_8_bits(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "llama", "llama")
    config = pophood.load(tmp_path / "llama", threads=1).config
    with pytest.raises(BadInput, match=r"^--shard spreads weights of 32 bits, got --base q8: leave out one"):
        for_model(TrainSettings(base="q8"), config, shard=True)


def wait_for(path: Path, text: str) -> None:
    """Wait until a file contains a text."""
    for _ in range(int(processes.HANG_SECONDS / 0.1)):
        if path.is_file() and text in path.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    pytest.fail(f"{path.name} never said {text}")


# The process group itself -----------------------------------------------------------------------------


def test_who_one_is_stands_in_the_environment() -> None:
    started = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    started |= {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    group = ProcessGroup.from_environment(started)
    assert group == GlooGroup(rank=3, size=4, local_size=2)
    assert group.threads(8) == 4
    assert group.threads(1) == 1
    assert ProcessGroup.from_environment({}) is LOCAL
    assert ProcessGroup.from_environment(started | {"WORLD_SIZE": "1"}) is LOCAL
    some = {"RANK": "3", "WORLD_SIZE": "4"}
    assert ProcessGroup.from_environment(some) is LOCAL, "some batch systems set these for themselves"


def test_shard_wants_others(data: Path) -> None:
    with pytest.raises(BadInput, match=r"--shard spreads .* this is the only one: start them with `torchrun"):
        trainer_of(Case(), data, shard=True)


def test_alone_everything_is_given_back() -> None:
    values = object()
    assert LOCAL.join() is LOCAL
    assert LOCAL.broadcast(values) is values
    assert LOCAL.on_rank_zero(lambda: values) is values
    assert LOCAL.sum(0.1, 0.2) == (0.1, 0.2)
    assert (LOCAL.any_reason("clock"), LOCAL.any_reason(None)) == ("clock", None)
    assert not torch.distributed.is_initialized()
    assert state_hash(({"trained.x": torch.zeros(2)}, {}))[:8] == "41c13df2"
