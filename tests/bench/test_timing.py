"""The timing of one work and of one process: tokens are counted, what stands before is computed once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pophood
from pophood.bench import timing
from pophood.bench.settings import Work
from pophood.bench.timing import Timer, run_process, start_command
from pophood.errors import PophoodError
from pophood.generate import Run, generate
from tests.bench.conftest import assert_no_sequence


@pytest.mark.parametrize(
    ("work", "tokens"),
    [
        (Work("prefill", 1, 9), 9),
        (Work("decode", 2, 5, 0), 5),
        (Work("decode", 1, 4, 7), 4),
        (Work("decode", 1, 4, 7, 3), 12),
    ],
)
def test_tokens_are_counted_without_the_prompt(
    work: Work, tokens: int, lm: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    timer = Timer(lm)
    assert [timer.rate(work) for _ in range(2)] == [tokens, tokens], "in one second of this clock"
    assert lm.engine.threads == work.threads
    timer.close()
    assert_no_sequence(lm)


def test_what_stands_before_is_computed_once(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Run] = []

    def recorded(*args: Any) -> Run:
        runs.append(generate(*args))
        return runs[-1]

    monkeypatch.setattr(timing, "generate", recorded)
    timer = Timer(lm)
    for _ in range(2):
        timer.rate(Work("decode", 1, 2, 40))
        timer.rate(Work("decode", 1, 2, 10, 2))
    timer.close()
    assert [run.timings.prefill_tokens for run in runs] == [40, 10, 1, 1]
    assert [run.timings.decode_tokens for run in runs] == [2, 4, 2, 4]


def test_a_new_process_is_timed_and_its_memory_known(lm: pophood.LM) -> None:
    command = start_command(lm, 1)
    assert command is not None and command[:3] == ["run", "-m", str(lm.path)]
    assert command[command.index("--threads") + 1] == "1"
    done = run_process(command)
    assert done.seconds > 0 and 20e6 < done.peak_memory < 2e9


def test_a_module_in_the_working_folder_is_not_run(
    lm: pophood.LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "click", "runpy", "pophood"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    command = start_command(lm, 1)
    assert command is not None
    assert run_process(command).seconds > 0


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(PophoodError, match=r"--no-start.*pophood: .*gone\.gguf"):
        run_process(["run", "-m", str(tmp_path / "gone.gguf"), "x"])


def test_a_process_ends_when_its_timing_is_interrupted(
    lm: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    class Interrupted(subprocess.Popen[str]):
        def communicate(self, *args: Any, **options: Any) -> Any:
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    monkeypatch.setattr(timing, "PROGRAM", "import time; time.sleep(3600)")
    with pytest.raises(KeyboardInterrupt):
        run_process([])
    assert started[0].returncode not in (None, 0)
    started[0].stderr.close()


def test_an_adapter_that_is_not_on_the_disk_starts_no_process(tmp_path: Path) -> None:
    here: Any = SimpleNamespace(
        path=tmp_path,
        engine=SimpleNamespace(precision="f32", kv="f32", context=9),
        adapter_places=((str(tmp_path), 0.5),),
    )
    words = start_command(here, 2)
    assert words is not None and words[words.index("--adapter") + 1] == f"{tmp_path}:0.5"
    here.adapter_places = (("in-memory", 1.0),)
    assert start_command(here, 2) is None
