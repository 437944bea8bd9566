"""Several processes, one store: one good copy, no crash, and a program that runs a model keeps it."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood import system
from pophood.hub.names import parse_name
from pophood.hub.store import lock_of
from tests import processes
from tests.hub.fake_hub import FakeHub

DATA = bytes(range(256)) * 2000
NAME = "owner/one"

PULLER = """
import sys
from pophood import hub
data = bytes(range(256)) * 2000
for _ in range(int(sys.argv[1])):
    found = hub.pull("owner/one", announce=lambda line: None)
    try:
        assert found.path.read_bytes() == data
    except FileNotFoundError:
        pass  # the deleter was here in between
print("good")
"""

DELETER = """
import sys, time
from pophood import errors, hub
for _ in range(int(sys.argv[1])):
    try:
        hub.remove("owner/one", announce=lambda line: None)
    except errors.NotFound:
        pass
    time.sleep(0.02)
print("good")
"""


def start(program: str, times: int) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, str(times)]
    return processes.started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_eight_pullers_a_deleter_and_a_runner(hub: FakeHub, home: Path) -> None:
    hub.add(NAME, {"one.gguf": DATA})
    running = system.map_file(pophood_hub.pull(NAME, announce=str).path)
    with ExitStack() as stack:
        programs = [(PULLER, 6)] * 8 + [(DELETER, 20)]
        children = [stack.enter_context(start(program, times)) for program, times in programs]
        for child in children:
            out, err = child.communicate(timeout=processes.HANG_SECONDS)
            assert (child.returncode, out) == (0, "good\n"), err
    assert running[:] == DATA
    running.close()
    assert pophood_hub.pull(NAME, announce=str).path.read_bytes() == DATA
    assert [model.name for model in pophood_hub.list_models()] == [NAME]
    left = [path for path in (home / "models").rglob("*") if path.is_file() and path.parent.name != ".locks"]
    assert sorted(path.name for path in left) == ["one.gguf", "pophood.json"]


def test_the_second_puller_waits_and_takes_what_the_first_fetched(hub: FakeHub) -> None:
    hub.add(NAME, {"one.gguf": DATA})
    entered, go = threading.Event(), threading.Event()

    def hold(path: str, data: bytes) -> bytes:
        entered.set()
        go.wait(processes.HANG_SECONDS)
        return data

    hub.wrong.body = hold
    found: list[pophood_hub.Located] = []
    said: list[str] = []
    first = threading.Thread(target=lambda: found.append(pophood_hub.pull(NAME, announce=str)))
    second = threading.Thread(target=lambda: found.append(pophood_hub.pull(NAME, announce=said.append)))
    first.start()
    assert entered.wait(processes.HANG_SECONDS)
    second.start()
    while not said and second.is_alive():
        time.sleep(0.01)
    assert said == ["owner/one: another process is fetching it; waiting for it to finish"]
    assert pophood_hub.list_models() == []  # half of it is here, none of it is visible
    go.set()
    first.join(processes.HANG_SECONDS)
    second.join(processes.HANG_SECONDS)
    assert found[0] == found[1]
    assert len(hub.paths("/cdn/")) == 1


def test_a_dead_process_holds_no_lock(hub: FakeHub) -> None:
    lock = lock_of(parse_name(NAME))
    program = "import sys, time; from pathlib import Path; from pophood import system\n"
    program += "with system.file_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(3600)"
    with processes.started([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with (
            pytest.raises(Exception, match="still locked by another process"),
            system.file_lock(lock, timeout=0.1),
        ):
            pass
    hub.add(NAME, {"one.gguf": DATA})
    assert pophood_hub.pull(NAME, announce=str).path.read_bytes() == DATA


def test_a_deleted_model_goes_on_for_those_who_have_it_open(hub: FakeHub) -> None:
    if sys.platform == "win32":
        pytest.skip(f"another operating system: {sys.platform}")
    hub.add(NAME, {"one.gguf": DATA})
    with pophood_hub.pull(NAME, announce=str).path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pophood_hub.remove(NAME)
    assert pophood_hub.list_models() == []
    assert mapping[:] == DATA
    mapping.close()
