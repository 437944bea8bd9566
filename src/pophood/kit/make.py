"""Makes a kit: chooses wheels, fetches what is missing, copies models, writes the course and the lists.

Every step leaves whole files or none, so a run that was stopped (Ctrl-C, a full disk, no network) goes on
where it was. What only needs asking is asked before a whole older kit in the same folder is touched.
"""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

from pophood.course import load_course
from pophood.errors import BadInput, NotFound, PophoodError
from pophood.hub import Located
from pophood.kit.copying import KitDialogue, carry_model, copy_file, files_to_carry, hash_of, remove_strays
from pophood.kit.manifest import KIT, MAKING, SUMS, KitManifest, KitModel, files_below, sums_text
from pophood.kit.own_wheels import OWN, given_wheels, own_wheel
from pophood.kit.packages import LockedWheel, Target, extras_of, fetch_torch, fetch_wheel, lock, torch_here
from pophood.kit.platforms import COMMON_GLIBC, PYTHONS, LaptopPlatform, glibc_of, wheel_name
from pophood.kit.texts import write_course, write_texts
from pophood.system import (
    atomic_write,
    check_writable_target,
    disk_errors,
    disk_of,
    file_lock,
    free_disk,
    replace,
    unique,
)


@dataclass(frozen=True, slots=True)
class KitPlan:
    """A kit that is wished for."""

    models: tuple[Located, ...]
    pythons: tuple[tuple[int, int], ...] | None  # None: every one that a wheel of pophood fits
    platform: LaptopPlatform
    extras: tuple[str, ...] = ()
    wheels: tuple[Path, ...] = ()  # files of pophood's own wheel and torch's, or folders with them
    slides: bool = True
    language: str = "en"


@dataclass(slots=True)
class _WheelChoice:
    """The wheels of one Python: pophood's own file (None: from the index), torch's, and the whole list."""

    target: Target
    own: Path | None
    torch: Path | None = None
    locked: list[LockedWheel] = field(default_factory=list)


def make_kit(plan: KitPlan, out: Path, dialogue: KitDialogue) -> KitManifest:
    """Write a kit into a new folder, or finish or renew the one that is there; returns what it holds.

    Raises BadInput for a plan that cannot be, NotFound for what cannot be fetched, PophoodError for the disk.
    """
    _check_folder(out)
    making = out / MAKING
    with disk_errors(out):
        making.mkdir(parents=True, exist_ok=True)
    waiting = f"{out}: another process makes this kit; waiting for it to finish"
    with file_lock(making / "lock", waiting=lambda: dialogue.say(waiting)), disk_errors(out):
        try:
            manifest = _make(plan, out, making, dialogue)
        finally:
            for left in making.iterdir():
                if left.is_dir():  # pip's, of this run or a killed one
                    shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(making, ignore_errors=True)
    return manifest


def _make(plan: KitPlan, out: Path, making: Path, dialogue: KitDialogue) -> KitManifest:
    course = load_course(plan.language)
    choices = _choose(plan, out, making, dialogue)
    _check_space(plan, out)
    (out / SUMS).unlink(missing_ok=True)  # from here on it is not whole
    wheels = _fetch(choices, out / "wheels", making, dialogue)
    models = []
    for model in plan.models:
        with dialogue.during(f"copying {model.name}") as report:
            models.append(carry_model(model, out / "models", making, report))
    shown = plan.models[0] if plan.slides else None
    pages = write_course(out / "course", course, models[0], shown, making, dialogue)
    manifest = _describe(plan, choices, models, out / "wheels")
    texts = write_texts(out, manifest, {choice.target.text: choice.locked for choice in choices})
    carried = [out / "models" / model.folder / name for model in models for name in model.files]
    for folder, kept in (
        ("wheels", wheels),
        ("models", carried),
        ("course", pages),
        ("requirements", texts),
    ):
        remove_strays(out / folder, kept, dialogue.detail)
    with dialogue.during("listing the kit's files"):
        (out / KIT).unlink(missing_ok=True)
        sums = {path.relative_to(out).as_posix(): hash_of(path) for path in files_below(out)}
        manifest = replace_fields(manifest, files=len(sums) + 1)
        atomic_write(out / KIT, manifest.text().encode())
        sums[KIT] = hash_of(out / KIT)
    atomic_write(out / SUMS, sums_text(sums).encode())
    return manifest


def _check_folder(out: Path) -> None:
    """Refuse a folder that has anything in it but a kit."""
    check_writable_target(out, folder=True)
    if out.is_dir() and any(out.iterdir()) and not ((out / SUMS).is_file() or (out / MAKING).is_dir()):
        raise BadInput(f"{out}: exists, and is no kit: name another place")


def _check_space(plan: KitPlan, out: Path) -> None:
    needed = sum(path.stat().st_size for model in plan.models for path in files_to_carry(model).values())
    here = (
        sum(path.stat().st_size for path in files_below(out / "models")) if (out / "models").is_dir() else 0
    )
    if needed - here > free_disk(out):
        raise PophoodError(
            f"{out}: the disk is too full: the models take {needed:,} bytes, free {free_disk(out):,} on "
            f"{disk_of(out)}: free some space there, or name a place on another disk"
        )


def _choose(plan: KitPlan, out: Path, making: Path, dialogue: KitDialogue) -> list[_WheelChoice]:
    """Find the wheels of every Python; pip is asked, and only torch's wheel is fetched."""
    if importlib.util.find_spec("pip") is None:
        raise NotFound("this Python has no pip to fetch wheels with: run `python -m ensurepip` and try again")
    given, mine = given_wheels(plan.wheels), version(OWN)
    extras = extras_of(plan.extras)
    choices = []
    for python, own in _own_wheels(plan, given, mine, dialogue).items():
        target = Target(plan.platform, python, glibc_of(own) if own else COMMON_GLIBC)
        choices.append(_WheelChoice(target, own))
    for choice in choices:
        for wanted in extras.get("train", ()):
            choice.torch = _torch(choice.target, wanted, given, out / "wheels", making, dialogue)
        asked = [_requirement(OWN, mine, plan.extras, choice.own), "pip"]
        asked += [_requirement("torch", "", (), choice.torch)] if choice.torch else []
        with dialogue.during(f"choosing packages for Python {choice.target.text}"):
            choice.locked = lock(choice.target, asked, making)
    return choices


def _own_wheels(
    plan: KitPlan, given: Sequence[Path], version: str, dialogue: KitDialogue
) -> dict[tuple[int, int], Path | None]:
    """Find pophood's own wheel for every Python, and say which are left out because none fits."""
    found: dict[tuple[int, int], Path | None] = {}
    missing: dict[str, NotFound] = {}
    for python in plan.pythons or PYTHONS:
        try:
            found[python] = own_wheel(given, version, plan.platform, python)
        except NotFound as error:
            if plan.pythons is not None:
                raise
            missing[f"{python[0]}.{python[1]}"] = error
    if missing and not found:
        raise next(iter(missing.values()))
    if missing:
        dialogue.say(
            f"left out: Python {', '.join(missing)}: no wheel of pophood for it is here (`make wheel` builds "
            "that of its own Python; one for 3.12 fits newer ones)"
        )
    return found


def _requirement(name: str, exact: str, extras: Sequence[str], file: Path | None) -> str:
    marked = f"{name}[{','.join(extras)}]" if extras else name
    return f"{marked}=={exact}" if file is None else f"{marked} @ {file.absolute().as_uri()}"


def _torch(
    target: Target,
    wanted: Requirement,
    given: Sequence[Path],
    wheels: Path,
    making: Path,
    dialogue: KitDialogue,
) -> Path:
    """Return a wheel of torch's CPU build: one that was named, one that is in the kit, or a fetched one."""
    here = torch_here([*given, *sorted(wheels.glob("torch-*.whl"))], target, wanted)
    if here is not None:
        return here
    folder = making / f"pip-{unique()}"
    folder.mkdir(parents=True)
    wheels.mkdir(exist_ok=True)
    with dialogue.during(f"fetching torch for Python {target.text}"):
        fetched = fetch_torch(target, wanted, folder)
    replace(fetched, wheels / fetched.name)
    return wheels / fetched.name


def _fetch(choices: Sequence[_WheelChoice], wheels: Path, making: Path, dialogue: KitDialogue) -> list[Path]:
    """Bring every wheel into the kit that is not there yet, one after the other."""
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = {wheel.file: (wheel, choice) for choice in choices for wheel in choice.locked}
    with dialogue.during(f"fetching {len(wanted)} wheels") as report:
        for done, (file, (wheel, choice)) in enumerate(sorted(wanted.items())):
            report(done, len(wanted))
            target = wheels / file
            if target.is_file() and hash_of(target) == wheel.sha256:
                continue
            dialogue.detail(f"{done + 1}/{len(wanted)} {file}")
            named = next((path for path in (choice.own, choice.torch) if path and path.name == file), None)
            if named is not None:
                copy_file(named, target, making)
                continue
            folder = making / f"pip-{unique()}"
            folder.mkdir()
            replace(fetch_wheel(choice.target, wheel, folder), target)
            shutil.rmtree(folder, ignore_errors=True)
    return [wheels / file for file in wanted]


def _describe(
    plan: KitPlan, choices: Sequence[_WheelChoice], models: Sequence[KitModel], wheels: Path
) -> KitManifest:
    packages, installed, needs = {}, {}, [0]
    for choice in choices:
        lines = [wheel for wheel in choice.locked if wheel.name != "pip"]
        packages[choice.target.text] = {wheel.name: wheel.version for wheel in lines}
        installed[choice.target.text] = sum(_unpacked(wheels / wheel.file) for wheel in lines)
        needs += [glibc_of(wheel.file) for wheel in lines]
    return KitManifest(
        pophood=version(OWN),
        platform=plan.platform.name,
        glibc=max(needs),
        pythons=tuple(choice.target.text for choice in choices),
        extras=tuple(plan.extras),
        models=tuple(models),
        packages=packages,
        installed=installed,
        language=plan.language,
    )


def _unpacked(wheel: Path) -> int:
    """Return the bytes of what a wheel holds."""
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(wheel) as archive:
        return sum(member.file_size for member in archive.infolist())
    raise PophoodError(
        f"{wheel_name(wheel)[0]}: {wheel} is no zip file: delete it, and run the same command again"
    )
