"""A home, a shared folder or a cache that cannot be used is an error, and never an empty list of models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadInput
from pophood.hub.resolve import chosen_model
from pophood.system import check_home
from tests.hub.fake_hub import FakeHub, gpt2_files
from tests.hub.test_choice import put, put_in_cache


def a_file(place: Path) -> Path:
    place.write_text("no folder")
    return place


def below_a_file(place: Path) -> Path:
    return a_file(place) / "home"


def a_dangling_link(place: Path) -> Path:
    place.symlink_to(place.parent / "gone")
    return place


def a_circle(place: Path) -> Path:
    place.symlink_to(place)
    return place


def locked(place: Path) -> Path:
    put(place / "models" / "owner" / "mine")
    place.chmod(0o000)
    return place


def listed_but_not_opened(place: Path) -> Path:
    put(place / "models" / "owner" / "mine")
    place.chmod(0o444)
    return place


UNUSABLE: list[tuple[Callable[[Path], Path], str]] = [
    (a_file, "is a file, or below one"),
    (below_a_file, "is a file, or below one"),
    (a_dangling_link, "is a link to nothing"),
    (a_circle, "is a link in a loop of links"),
    (locked, "cannot be read by this user"),
    (listed_but_not_opened, "can be listed by this user, but not opened"),
]
CALLS: dict[str, Callable[[], object]] = {
    "list": pophood_hub.list_models,
    "default": pophood_hub.default_choice,
    "run": lambda: pophood_hub.locate("gpt2", offline=True),
    "run smollm2": lambda: pophood_hub.locate("smollm2", offline=True),
    "run a name": lambda: pophood_hub.locate("mine", offline=True),
    "pull": lambda: pophood_hub.pull("gpt2", announce=str),
    "use": lambda: pophood_hub.use("owner/mine"),
    "use --none": lambda: pophood_hub.use(None),
    "rm": lambda: pophood_hub.remove("owner/mine"),
    "settings": chosen_model,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a test a place for unusable folders, and make root respect a folder's mode."""
    place = tmp_path / "unusable"
    if os.geteuid() == 0:
        scandir, access = os.scandir, os.access

        def judged_scandir(path: Path) -> object:
            if path.is_dir() and not path.stat().st_mode & 0o400:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        def judged_access(path: Path, mode: int) -> bool:
            return access(path, mode) and path.stat().st_mode >> 6 & mode == mode

        monkeypatch.setattr("pophood.system.user.os.scandir", judged_scandir)
        monkeypatch.setattr("pophood.system.user.os.access", judged_access)
    yield place
    monkeypatch.undo()
    if place.is_dir() and not place.is_symlink():
        place.chmod(0o755)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("make", "reason"), UNUSABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_an_unusable_home_is_an_error(
    make: Callable[[Path], Path],
    reason: str,
    call: str,
    hub: FakeHub,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = make(place)
    hub.add("openai-community/gpt2", gpt2_files())
    monkeypatch.setenv("POPHOOD_HOME", str(home))
    with pytest.raises(BadInput) as error:
        CALLS[call]()
    assert str(error.value) == (
        f"POPHOOD_HOME is {home}, which {reason}: point POPHOOD_HOME to a folder of yours"
    )
    assert hub.asked == []


def test_a_home_that_cannot_be_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(mode=0o555)
    monkeypatch.setenv("POPHOOD_HOME", str(place / "new"))
    with pytest.raises(BadInput, match=r"POPHOOD_HOME is .*/new, which does not exist and cannot be created"):
        pophood_hub.list_models()
    place.chmod(0o755)
    assert pophood_hub.list_models() == []


def test_a_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPHOOD_HOME", "~no-such-user/models")
    with pytest.raises(BadInput, match="POPHOOD_HOME is '~no-such-user/models': there is no such user"):
        pophood_hub.list_models()
    monkeypatch.delenv("POPHOOD_HOME")
    monkeypatch.setenv("POPHOOD_MODELS", "~no-such-user")
    with pytest.raises(BadInput, match="POPHOOD_MODELS is '~no-such-user': there is no such user"):
        pophood_hub.list_models()


def test_models_that_are_no_folder(home: Path) -> None:
    home.mkdir()
    (home / "models").write_text("not a folder")
    with pytest.raises(BadInput, match=r"models, where pophood keeps models, is a file, or below one: point"):
        pophood_hub.list_models()


def test_the_default_home_is_judged_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POPHOOD_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(a_file(place)))
    with pytest.raises(BadInput, match=r"pophood's own folder is .*/pophood, which is a file, or below one"):
        pophood_hub.list_models()


@pytest.mark.parametrize(("make", "reason"), UNUSABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_an_unusable_shared_folder_is_an_error(
    make: Callable[[Path], Path], reason: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = put(tmp_path / "shared" / "owner" / "fine").parent.parent
    monkeypatch.setenv("POPHOOD_MODELS", f"{good}{os.pathsep}{make(place)}")
    for call in (pophood_hub.list_models, lambda: pophood_hub.locate("gpt2", offline=True)):
        with pytest.raises(BadInput, match=f"POPHOOD_MODELS names .*, which {reason}: name a folder that"):
            call()


def test_a_shared_folder_may_be_on_a_disk_that_is_not_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPHOOD_MODELS", str(tmp_path / "share"))
    folder = put(home / "models" / "owner" / "mine")
    assert pophood_hub.locate("owner/mine").path == folder


@pytest.mark.parametrize(
    ("variable", "make", "reason"),
    [
        ("HF_HOME", a_file, "is a file, or below one"),
        ("HF_HOME", below_a_file, "is a file, or below one"),
        ("HF_HUB_CACHE", a_dangling_link, "is a link to nothing"),
        ("HF_HUB_CACHE", a_file, "is a file, or below one"),
        ("HUGGINGFACE_HUB_CACHE", a_circle, "is a link in a loop of links"),
        ("HUGGINGFACE_HUB_CACHE", locked, "cannot be read by this user"),
    ],
)
def test_an_unusable_cache_that_a_variable_names_is_an_error(
    variable: str,
    make: Callable[[Path], Path],
    reason: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, str(make(place)))
    for call in (pophood_hub.list_models, lambda: pophood_hub.locate("gpt2", offline=True)):
        with pytest.raises(BadInput, match=f"{variable} points to .*, which {reason}: name another folder"):
            call()


def test_a_cache_of_another_user_that_nobody_named_is_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_cache(tmp_path, "openai-community/gpt2")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(a_file(place)))
    assert pophood_hub.list_models() == []


def test_a_model_that_is_named_by_its_path_needs_no_home(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(a_file(place)))
    folder = put(tmp_path / "mine")
    assert pophood_hub.locate(str(folder)).path == folder


def test_a_new_home_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path / "not" / "yet" / "there"))
    check_home()
    assert pophood_hub.list_models() == []
    assert not (tmp_path / "not").exists()
