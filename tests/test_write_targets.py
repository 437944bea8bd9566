"""Output paths are checked before the work begins, and errors name the path that the user typed."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import pytest

from pophood import system
from pophood.errors import BadInput, PophoodError
from tests import needs, processes


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change into a folder of the test, so that paths can be relative, as users type them."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file.txt").write_text("mine", encoding="utf-8")
    Path("link.html").symlink_to("file.txt")
    Path("dangling.html").symlink_to("nowhere/page.html")
    Path("loop").symlink_to("loop")


@pytest.mark.parametrize(
    "name", ["page.html", "folder/page.html", "./page.html", "file.txt", "link.html", "…"]
)
def test_places_that_will_do(name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    system.check_writable_target(name)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"
    assert Path("file.txt").read_text("utf-8") == "mine"


@pytest.mark.parametrize("name", ["folder", "new", "new/and/deeper", "./new/", "."])
def test_folders_that_will_do(name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    system.check_writable_target(name, folder=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out/page.html", "the folder out does not exist: make it, or name another"),
        ("a/b/c.html", "the folder a/b does not exist"),
        ("dangling.html", "does not exist"),
        ("file.txt/page.html", "file.txt is a file, not a folder"),
        ("file.txt/deeper/page.html", "file.txt is a file, not a folder"),
        ("link.html/page.html", "is a file, not a folder"),
        ("folder", "is a folder; wanted a file"),
        (".", "is a folder; wanted a file"),
        ("page.html/", "names a folder; wanted a file"),
        ("", "is not a name for a file"),
        ("a\0b", "is not a name for a file"),
    ],
)
def test_places_that_cannot_hold_a_file(name: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        system.check_writable_target(name)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"{name}:" if name and "\0" not in name else repr(name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file.txt", "is a file; wanted a folder"),
        ("file.txt/gallery", "file.txt is a file, not a folder"),
        ("link.html/gallery/deeper", "is a file, not a folder"),
    ],
)
def test_places_that_cannot_hold_a_folder(name: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        system.check_writable_target(name, folder=True)
    assert str(refused.value).startswith(f"{name}:") and words in str(refused.value)


def test_a_device_is_not_replaced_by_a_file() -> None:
    needs.linux()
    for device in ("/dev/null", "/dev/full"):
        with pytest.raises(BadInput, match=f"^{device}: is a device or a pipe; wanted a regular file"):
            system.check_writable_target(device)


@pytest.mark.parametrize("name", ["x" * 300 + ".html", "loop", "loop/page.html", "x" * 300 + "/page.html"])
def test_what_the_system_refuses_is_told_in_its_words(name: str) -> None:
    with pytest.raises(PophoodError) as refused:
        system.check_writable_target(name)
    assert str(refused.value).startswith(f"{name}: ") and ".tmp" not in str(refused.value)


@pytest.mark.parametrize("folder", [False, True])
def test_a_place_without_permission(folder: bool) -> None:
    needs.linux()
    place = "/sys/page.html"  # not writable for root either
    with pytest.raises(
        PophoodError, match=f"^{place}: cannot be written .*name a place that you can write to"
    ):
        system.check_writable_target(place, folder=folder)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EIO])
def test_the_probe_tells_every_reason_under_the_name_that_was_typed(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str | os.PathLike[str], *rest: object) -> int:
        raise OSError(number, os.strerror(number), os.fspath(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PophoodError) as refused:
        system.check_writable_target("folder/page.html")
    assert str(refused.value).startswith("folder/page.html: ") and ".tmp" not in str(refused.value)
    assert ("disk is full" if number == errno.ENOSPC else os.strerror(number)) in str(refused.value)


@pytest.mark.skipif(sys.platform == "win32", reason="another operating system: modes are POSIX")
def test_permission_bits_count_for_an_ordinary_user(tmp_path: Path) -> None:
    """A child process of an ordinary user tries a folder without write permission."""
    if os.geteuid() == 0:
        folder, code = Path("/"), "os.setgid(65534); os.setuid(65534)"
    else:
        folder, code = tmp_path / "closed", "pass"
        folder.mkdir(mode=0o500)
    program = f"""
import os
import re
from pophood import system
from pophood.errors import PophoodError
{code}
for folder in (False, True):
    try:
        system.check_writable_target({str(folder / "pophood-test-page.html")!r}, folder=folder)
    except PophoodError as error:
        print(error)
"""
    done = processes.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{folder / 'pophood-test-page.html'}: cannot be written") for line in lines)


# Errors while writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no/such/page.html", "file.txt/page.html", "folder", "x" * 300])
def test_a_failed_write_names_what_was_typed(name: str) -> None:
    with pytest.raises((OSError, PophoodError)) as refused:
        system.atomic_write(name, b"content")
    shown = refused.value.filename if isinstance(refused.value, OSError) else str(refused.value)
    assert shown.startswith(name) and ".tmp" not in str(refused.value)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.EBUSY, errno.ETXTBSY])
def test_an_error_of_the_disk_names_what_was_typed(
    call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        name = os.fspath(args[0]) if isinstance(args[0], Path) else None
        raise OSError(number, os.strerror(number), name)

    owner: object = os if call == "fsync" else Path
    monkeypatch.setattr(owner, call, fail)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as refused:
        system.atomic_write("link.html", b"content")
    assert (refused.value.errno, refused.value.filename) == (number, "link.html")
    assert Path("file.txt").read_text("utf-8") == "mine"


def test_an_error_of_the_writer_keeps_the_name_of_its_own_file() -> None:
    def writer(file: object) -> None:
        Path("missing.bin").read_bytes()

    with pytest.raises(FileNotFoundError) as missing:
        system.atomic_write("page.html", writer)
    assert missing.value.filename == "missing.bin"


# Advice for a full disk ---------------------------------------------------------------------------------


def full(path: Path) -> str:
    with pytest.raises(PophoodError) as told, system.disk_errors(path, 9):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return str(told.value)


def test_a_full_disk_is_named_and_the_advice_fits_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path / "home"))
    elsewhere = full(tmp_path / "page.html")
    assert "name a place on another disk" in elsewhere and "POPHOOD_HOME" not in elsewhere
    assert f"bytes on {system.disk_of(tmp_path)}: free some space there" in elsewhere
    for own in (tmp_path / "home", tmp_path / "home" / "models" / "gpt2" / "model.safetensors"):
        assert "point POPHOOD_HOME to a place on another disk" in full(own)
    assert "POPHOOD_HOME" not in full(tmp_path / "home-of-another" / "page.html")


def test_the_disk_of_a_path_is_where_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.linux()
    assert system.disk_of("/proc/self/status") == Path("/proc")
    assert system.disk_of("/dev/shm/none/such/file") in (Path("/dev/shm"), Path("/dev"), Path("/"))
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "folder")
    assert system.disk_of("folder/new/page.html") == tmp_path / "folder"
    Path("link").symlink_to("folder")
    assert system.disk_of("link/page.html") == tmp_path / "folder", "a link is followed to its disk"
    assert system.disk_of("page.html") == Path("/")
