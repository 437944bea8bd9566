"""Real processes that are killed, stopped, frozen or out of memory: the next one ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pophood.train.checkpoint.save_load import latest, load
from tests import needs, processes
from tests.conftest import ROOT
from tests.train.hashes import saved_hash, state_hash
from tests.train.small import Case, documents, trainer_of

STEPS = 24
CASE = {"method": "lora", "family": "llama", "dropout": 0.1, "accumulation": 2, "steps": STEPS}
Line = dict[str, Any]


class Run:
    """A running process and its output so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[Line] = []

    def read(self) -> Line | None:
        """Return the next line, or None at the end."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            return None
        self.lines.append(json.loads(text))
        return self.lines[-1]

    def until(self, step: int) -> None:
        """Wait until the process has made this many steps."""
        while (line := self.read()) is not None:
            if line.get("event") == "step" and line["step"] >= step:
                return
        pytest.fail(f"the process ended: {self.lines[-1:]}")

    def end(self) -> int:
        """Wait for the end, and return the exit code."""
        while self.read() is not None:
            pass
        return self.process.wait()

    def of(self, event: str) -> list[Line]:
        """Return the lines of one kind."""
        return [line for line in self.lines if line.get("event") == event]


@contextmanager
def run(data: Path, out: Path, threads: int = 1, **fields: Any) -> Iterator[Run]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    with processes.started(
        [sys.executable, "-m", "tests.train.runner", str(data), str(out), json.dumps({**CASE, **fields})],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
    ) as process:
        yield Run(process)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    documents(folder)
    return folder


@pytest.fixture(scope="module")
def wanted(data: Path) -> str:
    """The hash at the end of an uninterrupted run in this process."""
    import torch

    torch.set_num_threads(1)
    trainer = trainer_of(Case(**CASE), data)  # type: ignore[arg-type]
    list(trainer.run())
    return state_hash(trainer.state())


def goes_on(data: Path, out: Path, wanted: str) -> None:
    """Resume from the newest checkpoint in this process, and compare the end."""
    path = latest(out, lambda line: None)
    assert path is not None
    trainer = trainer_of(Case(**CASE), data, out=out)  # type: ignore[arg-type]
    trainer.restore(*load(path))
    list(trainer.run())
    assert state_hash(trainer.state()) == wanted


def kill(data: Path, out: Path, step: int) -> None:
    """Kill -9 after a step loses at most the work since the last save."""
    with run(data, out) as killed:
        killed.until(step)
        killed.process.kill()
        assert killed.end() == -signal.SIGKILL
        path = latest(out, lambda line: None)
        assert path is not None
        assert load(path)[1]["step"] >= max([line["step"] for line in killed.of("saved")], default=0)


def test_killed_and_gone_on_in_a_new_process(data: Path, tmp_path: Path, wanted: str) -> None:
    kill(data, tmp_path / "out", random.Random(0).randint(7, STEPS - 7))
    with run(data, tmp_path / "out") as resumed:
        assert resumed.end() == 0
        assert resumed.of("started")[0]["first_step"] >= 6
        assert resumed.lines[-1] == {"hash": wanted, "threads": 1}


def stop_by(number: int, freeze: float, data: Path, out: Path, step: int) -> None:
    """A signal after a step saves within one more step, and the exit code is that of a shell."""
    with run(data, out, pause=0.05) as stopped:
        stopped.until(step)
        if freeze:
            stopped.process.send_signal(signal.SIGSTOP)
            time.sleep(freeze)
            stopped.process.send_signal(signal.SIGCONT)
            stopped.until(stopped.of("step")[-1]["step"] + 1)
        stopped.process.send_signal(number)
        assert stopped.end() == 128 + number
        (finished,) = stopped.of("finished")
        assert finished["reason"] == "stopped"
        (arrived,) = (line["arrived"] for line in stopped.lines if "arrived" in line)
        assert arrived <= finished["step"] <= arrived + 1
        path = latest(out, pytest.fail)
        assert path is not None
        assert load(path)[1]["step"] == finished["step"]
        assert stopped.lines[-2]["hash"] == saved_hash(path)


@pytest.mark.parametrize(
    ("number", "freeze"), [pytest.param(signal.SIGINT, 0.0, marks=pytest.mark.full), (signal.SIGTERM, 0.3)]
)
def test_asked_to_stop(number: int, freeze: float, data: Path, tmp_path: Path, wanted: str) -> None:
    needs.linux()
    stop_by(number, freeze, data, tmp_path / "out", random.Random(number).randint(1, STEPS - 5))
    goes_on(data, tmp_path / "out", wanted)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_many_times_and_ways(seed: int, data: Path, tmp_path: Path, wanted: str) -> None:
    needs.linux()
    chance = random.Random(100 + seed)
    if seed % 2:
        kill(data, tmp_path / "out", chance.randint(7, STEPS - 2))
    else:
        number = chance.choice([signal.SIGINT, signal.SIGTERM])
        freeze = 60.0 if seed == 0 else chance.choice([0.0, 2.0])
        stop_by(number, freeze, data, tmp_path / "out", chance.randint(1, STEPS - 5))
    goes_on(data, tmp_path / "out", wanted)


@pytest.mark.full
def test_two_threads_give_the_same_bits_twice(data: Path, tmp_path: Path) -> None:
    hashes = []
    for name, step in (("whole", None), ("killed", 14)):
        if step is not None:
            with run(data, tmp_path / name, threads=2) as killed:
                killed.until(step)
                killed.process.kill()
        with run(data, tmp_path / name, threads=2) as whole:
            assert whole.end() == 0
            assert whole.lines[-1]["threads"] == 2
            hashes.append(whole.lines[-1]["hash"])
    assert hashes[0] == hashes[1]


@pytest.mark.full
def test_without_memory_it_says_so_and_the_last_checkpoint_stands(
    data: Path, tmp_path: Path, wanted: str
) -> None:
    needs.linux()
    with run(data, tmp_path / "out", memory=1) as starved:
        assert starved.end() == 1
        error = starved.lines[-1]
        assert error["error"] == "OutOfMemory"
        assert "the last checkpoint is whole: lower --batch-size or --length" in error["text"]
    goes_on(data, tmp_path / "out", wanted)
