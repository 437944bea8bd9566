"""Sets a laptop up from the kit in this file's folder, with Python's own library alone and no network.

Checks the kit and the laptop, makes a virtual environment, installs the kit's wheels by their hashes, and
lets the installed pophood place the models and say whether all is ready. It may be run again at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

KIT = Path(__file__).resolve().parent
OLDEST = (3, 11)
MARK = "pophood-kit.txt"  # in a folder that this script made
SYSTEMS = {"linux-x86_64": ("Linux", ("x86_64", "amd64"))}
AGAIN = "copy the kit again"


def main(arguments: list[str]) -> int:
    """Set the laptop up and return the exit code of the last check."""
    if sys.version_info[:2] < OLDEST:
        stop(f"this is Python {platform.python_version()}, which is too old: run setup.sh")
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        stop("usage: sh setup.sh [FOLDER]    (default: ~/pophood-class)")
    target = Path(arguments[0] if arguments else "~/pophood-class").expanduser().absolute()
    check_files()
    manifest = json.loads((KIT / "kit.json").read_text(encoding="utf-8"))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    check_laptop(manifest, version, target)
    python = make_environment(target)
    say("installing the packages")
    pip = min((KIT / "wheels").glob("pip-*.whl"))  # the oldest, if Pythons differ in it, runs on all
    install = [
        str(python),
        str(pip / "pip"),
        "--isolated",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    install += ["--no-index", "--no-cache-dir", "--require-hashes", "--find-links", str(KIT / "wheels")]
    run([*install, "--requirement", str(KIT / "requirements" / f"python-{version}.txt")])
    say("placing the models")
    run([str(python), "-m", "pophood", "kit", "models", str(KIT)])
    code = subprocess.run([str(python), "-m", "pophood", "kit", "check"], check=False).returncode
    if code == 0:
        words = ["talk", "-m", manifest["models"][0]["name"]]
        words += ["--language", manifest["language"]] if manifest["language"] != "en" else []
        say(f"begin with: {shlex.join([str(target / 'bin' / 'pophood'), *words])}")
    return code


def check_files() -> None:
    """Compare the kit's files with SHA256SUMS."""
    say("checking the kit")
    sums = KIT / "SHA256SUMS"
    if not sums.is_file():
        stop(f"{KIT}: this kit is not whole (SHA256SUMS is missing): {AGAIN}")
    lines = sums.read_bytes().decode("utf-8", "replace").splitlines()
    for line in lines:
        wanted, _, name = line.partition("  ")
        try:
            with (KIT / name).open("rb") as file:
                got = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            stop(f"{name} is missing: {AGAIN}")
        except OSError as error:
            stop(f"{name} cannot be read ({error.strerror}): {AGAIN}")
        if got != wanted:
            stop(f"{name} is damaged: {AGAIN}")
    if not lines or len(lines) != json.loads((KIT / "kit.json").read_text(encoding="utf-8"))["files"]:
        stop(f"SHA256SUMS is damaged: {AGAIN}")


def check_laptop(manifest: dict[str, Any], version: str, target: Path) -> None:
    """Stop, with the reason, on a laptop that the kit was not made for, or whose disk is too full."""
    system, machines = SYSTEMS[manifest["platform"]]
    if (platform.system(), platform.machine().lower() in machines) != (system, True):
        stop(f"the kit is for {manifest['platform']}; this is {platform.system()} {platform.machine()}")
    if version not in manifest["pythons"]:
        stop(f"this is Python {version}; the kit is for {', '.join(manifest['pythons'])}: run setup.sh")
    library, number = platform.libc_ver()
    if library != "glibc" or int(number.split(".")[1]) < manifest["glibc"]:
        stop(f"the kit needs glibc 2.{manifest['glibc']}; this is {library or 'another library'} {number}")
    place = next(folder for folder in (target, *target.parents) if folder.exists())
    free, needed = shutil.disk_usage(place).free, manifest["installed"][version]
    if (target / MARK).is_file():  # what an earlier run has put there is deleted first
        free += sum(path.lstat().st_size for path in target.rglob("*") if not path.is_dir())
    if free < needed:
        stop(f"the disk is too full: the packages take {needed:,} bytes, free {free:,} at {place}")


def make_environment(target: Path) -> Path:
    """Make the virtual environment, anew if this script made it before, and return its Python."""
    if target.exists() and not (target / MARK).is_file() and any(target.iterdir()):
        stop(f"{target}: exists, and was not made from a kit: name another folder behind setup.sh")
    say(f"making {target}")
    target.mkdir(parents=True, exist_ok=True)
    (target / MARK).write_text(f"made from the kit {KIT}\n", encoding="utf-8")
    for path in target.iterdir():  # of an earlier run
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    venv.create(target, with_pip=False, symlinks=os.name != "nt")  # pip runs from its wheel
    return target / "bin" / "python"


def run(command: list[str]) -> None:
    """Run a step to its end; its own words say what is wrong if it fails."""
    code = subprocess.run(command, check=False).returncode
    if code:
        stop("stopped: see the lines above; setup.sh can be run again")


def say(text: str) -> None:
    """Print what happens now."""
    print(f"pophood kit: {text}", flush=True)


def stop(text: str) -> None:
    """End the script with a message."""
    sys.exit(f"pophood kit: {text}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        stop("stopped; setup.sh can be run again")
    except OSError as error:
        stop(f"{error.filename or ''}: {error.strerror or error}; setup.sh can be run again")
