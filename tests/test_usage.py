"""The processor's name and use, and the memory of this process; on machines that the test simulates too."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pophood import system
from pophood.system import usage
from tests import needs


def machine(root: Path, name: str, text: str) -> Path:
    """Write one file below `root`, and return `root`."""
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("platform", "text", "name"),
    [
        ("linux", "processor\t: 0\nmodel name\t: A Chip: 9000\nflags\t: fpu\n", "A Chip: 9000"),
        ("linux", "processor\t: 0\nFeatures\t: fp\n", "from the platform"),
        ("darwin", "model name\t: A Chip: 9000\n", "from the platform"),
    ],
)
def test_the_processor_is_named_as_its_maker_does(
    platform: str, text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(usage, "platform", SimpleNamespace(processor=lambda: "from the platform"))
    assert system.processor_name(machine(tmp_path, "proc/cpuinfo", text)) == name


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("cpu  100 20 30 4000 500 6 7 80 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n", 100 + 20 + 30 + 6 + 7 + 80),
        ("cpu  100 20\n", None),
        ("", None),
    ],
)
def test_busy_seconds(text: str, ticks: int | None, tmp_path: Path) -> None:
    needs.linux()
    seconds = system.busy_seconds(machine(tmp_path, "proc/stat", text))
    assert seconds == (None if ticks is None else ticks / os.sysconf("SC_CLK_TCK"))


def test_peak_memory(tmp_path: Path) -> None:
    needs.linux()
    status = "Name:\tpython\nVmPeak:\t 99 kB\nVmHWM:\t   5000 kB\n"
    assert system.peak_memory(machine(tmp_path, "proc/self/status", status)) == 5000 * 1024
    before = system.peak_memory()
    assert len(b"x" * (2 * before)) == 2 * before
    assert system.peak_memory() > before
    assert system.peak_memory(tmp_path / "nothing") > before, "as getrusage has it"


def test_the_work_of_this_process_is_not_that_of_others() -> None:
    needs.linux()
    busy, others, own = system.busy_seconds(), system.others_seconds(), time.process_time()
    while time.process_time() < own + 0.3:
        pass
    busy_after, others_after = system.busy_seconds(), system.others_seconds()
    assert None not in (busy, others, busy_after, others_after)
    assert busy_after - busy > 0.2  # type: ignore[operator]
    assert (others_after - others) < (busy_after - busy) - 0.2  # type: ignore[operator]
