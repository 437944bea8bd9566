"""Files, locks, folders, memory and cores, on machines that the test simulates."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pophood import system
from pophood.errors import BadFile, BadInput, NotFound, PophoodError
from tests import needs

# Files --------------------------------------------------------------------------------------------------


def test_a_mapped_file_is_its_bytes_and_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"GGUF" * 2000)
    mapping = system.map_file(tmp_path / "a")
    assert mapping[:] == b"GGUF" * 2000
    assert memoryview(mapping).readonly
    with pytest.raises(TypeError):
        mapping[0] = 1
    mapping.close()


def test_what_cannot_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(BadFile, match="empty: the file is empty: fetch it again"):
        system.map_file(tmp_path / "empty")
    with pytest.raises(NotFound, match="none: there is no such file"):
        system.map_file(tmp_path / "none")
    with pytest.raises(BadFile, match=r"folder|cannot be read"):
        system.map_file(tmp_path)
    with pytest.raises(BadFile, match="cannot be read"):
        system.map_file(tmp_path / ("x" * 5000))


def test_atomic_write_of_bytes_and_of_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    system.atomic_write(path, b"one")

    def writer(file: BinaryIO) -> None:
        file.write(b"two")
        assert path.read_bytes() == b"one"

    system.atomic_write(path, writer)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.skipif(sys.platform == "win32", reason="another operating system: modes and links are POSIX")
def test_atomic_write_keeps_mode_and_link(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    system.atomic_write(path, b"one")
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    path.chmod(0o640)
    link.symlink_to(path)
    system.atomic_write(link, b"two")
    assert link.is_symlink()
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640


def failing(monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> list[str]:
    """Make one of the writing calls fail; return a list of the calls, which grows."""
    calls: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == at:
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", wrap("fsync", os.fsync))
    monkeypatch.setattr(Path, "open", wrap("open", Path.open))
    monkeypatch.setattr(Path, "replace", wrap("replace", Path.replace))
    return calls


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        calls = failing(patch, at, errno.ENOSPC)
        with pytest.raises(
            PophoodError,
            match=r"file: the disk is full: needed 3 bytes, free [\d,]+ bytes on /[^:]*: free some",
        ):
            system.atomic_write(path, b"new")
    assert calls == ["open", "fsync", "replace", "fsync"][:at]
    assert path.read_bytes() == (b"old" if at < 4 else b"new")  # the 4th only makes the rename durable
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "cannot be written"),
        (errno.EACCES, "cannot be written"),
    ],
)
def test_other_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    failing(monkeypatch, 2, number)
    with pytest.raises(PophoodError, match=words):
        system.atomic_write(tmp_path / "file", lambda file: file.write(b"x"))


def test_what_is_no_matter_of_space_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, 2, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        system.atomic_write(tmp_path / "file", b"x")


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    path, inside, most, waited = tmp_path / "deep" / "lock", [0], [0], []

    def work() -> None:
        for _ in range(5):
            with system.file_lock(path, waiting=lambda: waited.append(1)):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                threading.Event().wait(0.002)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert waited
    assert path.exists()


def test_a_lock_has_a_time_limit_and_is_freed_by_errors(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(KeyError), system.file_lock(path):
        words = r"still locked by another process after 0.1 s"
        with pytest.raises(PophoodError, match=words), system.file_lock(path, timeout=0.1):
            pass
        raise KeyError
    with system.file_lock(path, timeout=0.1):
        pass


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.linux()
    import fcntl

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(PophoodError, match="this file system has no locks"),
        system.file_lock(tmp_path / "lock"),
    ):
        pass


def test_free_disk_of_a_place_that_is_not_there_yet(tmp_path: Path) -> None:
    assert system.free_disk(tmp_path / "a" / "b") == system.free_disk(tmp_path) > 0


# Folders and switches -----------------------------------------------------------------------------------


def test_home_and_model_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path))
    monkeypatch.setenv("POPHOOD_MODELS", os.pathsep.join(["/shared/a", "", "~/b"]))
    assert system.home() == tmp_path
    assert system.model_folders() == [Path("/shared/a").absolute(), Path.home() / "b", tmp_path / "models"]
    monkeypatch.delenv("POPHOOD_MODELS")
    assert system.model_folders() == [tmp_path / "models"]
    monkeypatch.setenv("POPHOOD_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert system.home() == tmp_path / "data" / "pophood"
    assert list(tmp_path.iterdir()) == []  # a query creates nothing


@pytest.mark.parametrize(
    ("value", "said"), [("1", True), ("true", True), ("yes", True), ("", False), ("0", False), ("No", False)]
)
def test_offline(monkeypatch: pytest.MonkeyPatch, value: str, said: bool) -> None:
    for ours, theirs in (("POPHOOD_OFFLINE", "HF_HUB_OFFLINE"), ("HF_HUB_OFFLINE", "POPHOOD_OFFLINE")):
        monkeypatch.setenv(ours, value)
        monkeypatch.delenv(theirs, raising=False)
        assert system.offline() is said


def test_consoles(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(encoding: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(), encoding=encoding)

    assert system.unicode_ok(stream("utf-8"))
    assert not any(system.unicode_ok(stream(encoding)) for encoding in ("cp1252", "ascii", "cp437"))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert system.colour_ok(Terminal())
    assert not system.colour_ok(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not system.colour_ok(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert system.colour_ok(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not system.colour_ok(Terminal())


# Memory and cores of simulated machines -------------------------------------------------------

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], Path]:
    """Write a /proc and a /sys below a folder; 16 GiB are available by default."""
    needs.linux()
    monkeypatch.delenv("POPHOOD_THREADS", raising=False)

    def lay_out(files: dict[str, str]) -> Path:
        base = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {16 * GIB // 1024} kB\n"}
        for name, text in (base | files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return lay_out


Machine = Callable[[dict[str, str]], Path]
V2 = {"proc/self/cgroup": "0::/user.slice/app\n"}
APP, PARENT = "sys/fs/cgroup/user.slice/app", "sys/fs/cgroup/user.slice"
V1 = {"proc/self/cgroup": "7:cpu,cpuacct:/box\n4:memory:/box\n0::/\n"}
BOX = "sys/fs/cgroup/memory/box"


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, 16 * GIB),
        ({**V2, f"{APP}/memory.max": "max\n", f"{APP}/memory.current": "5"}, 16 * GIB),
        ({**V2, f"{APP}/memory.max": f"{4 * GIB}", f"{APP}/memory.current": f"{GIB}"}, 3 * GIB),
        ({**V2, f"{PARENT}/memory.max": f"{2 * GIB}", f"{PARENT}/memory.current": f"{GIB}"}, GIB),
        (
            {
                **V2,
                f"{APP}/memory.max": f"{4 * GIB}",
                f"{APP}/memory.current": f"{3 * GIB}",
                f"{APP}/memory.stat": f"anon 7\nactive_file {GIB}\ninactive_file {GIB // 2}\n",
            },
            4 * GIB - 3 * GIB + GIB + GIB // 2,
        ),
        ({**V1, f"{BOX}/memory.limit_in_bytes": f"{GIB}", f"{BOX}/memory.usage_in_bytes": "0"}, GIB),
        (
            {
                **V1,
                f"{BOX}/memory.limit_in_bytes": "9223372036854771712",
                f"{BOX}/memory.usage_in_bytes": "0",
            },
            16 * GIB,
        ),
        # a container whose own cgroup is mounted as the root, as Docker does it with v1
        (
            {
                **V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
            },
            2 * GIB,
        ),
        ({**V2, f"{APP}/memory.max": "5", f"{APP}/memory.current": "9"}, 0),
        ({"proc/self/cgroup": "0::/../..\n"}, 16 * GIB),
    ],
)
def test_available_memory(machine: Machine, files: dict[str, str], available: int) -> None:
    assert system.available_memory(machine(files)) == available


def topology(siblings: list[str]) -> dict[str, str]:
    base = "sys/devices/system/cpu"
    return {f"{base}/cpu{i}/topology/thread_siblings_list": text for i, text in enumerate(siblings)}


HYPER = topology(["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"])
HYBRID = topology(["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"]) | {"sys/devices/cpu_core/cpus": "0-3\n"}
ARM = topology([str(i) for i in range(8)]) | {
    f"sys/devices/system/cpu/cpu{i}/cpu_capacity": "1024" if i > 3 else "380" for i in range(8)
}


@pytest.mark.parametrize(
    ("files", "allowed", "cores"),
    [
        (HYPER, set(range(8)), 4),
        (HYPER, {0, 4}, 1),
        (HYPER, {0, 1, 2}, 3),
        (HYBRID, set(range(8)), 2),
        (HYBRID, {4, 5, 6}, 3),  # only slow cores are allowed, so they count
        (ARM, set(range(8)), 4),
        ({}, {0, 1, 2, 3, 4, 5}, 6),
    ],
)
def test_physical_cores(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], allowed: set[int], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    assert system.physical_cores(machine(files)) == cores


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({}, 4),
        ({**V2, f"{APP}/cpu.max": "max 100000"}, 4),
        ({**V2, f"{APP}/cpu.max": "250000 100000"}, 2),
        ({**V2, f"{PARENT}/cpu.max": "50000 100000"}, 1),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
            },
            4,
        ),
    ],
)
def test_threads(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert system.default_threads(machine(HYPER | files)) == threads


def test_threads_by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPHOOD_THREADS", "3")
    assert system.default_threads() == 3
    for bad in ("0", "-1", "two", "1.5", "4096", "٣"):
        monkeypatch.setenv("POPHOOD_THREADS", bad)
        with pytest.raises(BadInput, match="wanted a whole number from 1 to 1024"):
            system.default_threads()


def test_this_machine() -> None:
    assert 1 <= system.physical_cores() <= (os.cpu_count() or 1)
    assert 1 <= system.default_threads() <= system.physical_cores()
    assert 1 << 20 < system.available_memory() < 1 << 50
