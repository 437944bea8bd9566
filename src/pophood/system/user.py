"""What the user chose: the folders, the switches, and the console that reads along."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TextIO

from pophood.errors import BadInput

MISSING = "does not exist"


def home() -> Path:
    """Where pophood keeps models and settings: POPHOOD_HOME, else the system's folder for user data."""
    chosen = os.environ.get("POPHOOD_HOME")
    if chosen:
        return _from_variable("POPHOOD_HOME", chosen)
    from platformdirs import user_data_path

    return user_data_path("pophood", appauthor=False)


def model_folders() -> list[Path]:
    """Where models are looked for, in order: POPHOOD_MODELS (only read), then `home()/models` (written)."""
    shared = os.environ.get("POPHOOD_MODELS", "")
    folders = [_from_variable("POPHOOD_MODELS", part) for part in shared.split(os.pathsep) if part.strip()]
    return [*folders, home() / "models"]


def check_folders() -> None:
    """Raise BadInput for a folder of POPHOOD_MODELS, or a home, that cannot be used (see `check_home`).

    A shared folder may be missing: it may be on a disk that is not always there.
    """
    for folder in model_folders()[:-1]:
        reason = folder_fault(folder)
        if reason and reason != MISSING:
            raise BadInput(
                f"POPHOOD_MODELS names {folder}, which {reason}: name a folder that you can read, or unset it"
            )
    check_home()


def check_home() -> None:
    """Raise BadInput, with the reason, where pophood's home or the models in it cannot be used.

    A home that does not exist yet is fine if it can be made. Without this check a mistyped POPHOOD_HOME, or
    one of another user, would look like a machine without models, and models would be fetched twice.
    """
    folder, chosen = home(), bool(os.environ.get("POPHOOD_HOME"))
    reason = folder_fault(folder)
    if reason == MISSING:
        if not chosen or _can_be_made(folder):
            return
        reason = "does not exist and cannot be made"
    if reason:
        what = "POPHOOD_HOME is" if chosen else "pophood's own folder is"
        raise BadInput(f"{what} {folder}, which {reason}: point POPHOOD_HOME to a folder of yours")
    reason = folder_fault(folder / "models")
    if reason and reason != MISSING:
        raise BadInput(
            f"{folder / 'models'}, where pophood keeps models, {reason}: point POPHOOD_HOME to "
            "a folder of yours"
        )


def _from_variable(variable: str, text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # ~nobody
        raise BadInput(f"{variable} is {text!r}: there is no such user: name a folder") from None


def folder_fault(folder: Path) -> str | None:
    """Why a folder cannot be listed, in words (MISSING if there is none), or None if it can."""
    try:
        with os.scandir(folder):
            return None if os.access(folder, os.X_OK) else "may be listed by this user, but not opened"
    except FileNotFoundError:
        return "is a link to nothing" if folder.is_symlink() else MISSING
    except NotADirectoryError:
        return "is a file, or below one"
    except PermissionError:
        return "may not be read by this user"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads in a circle"
        return f"cannot be listed ({error.strerror})"


def _can_be_made(folder: Path) -> bool:
    """Whether the nearest folder above that exists may be written."""
    parent = folder.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    return os.access(parent, os.W_OK | os.X_OK)


def offline() -> bool:
    """Whether POPHOOD_OFFLINE (or Hugging Face's own HF_HUB_OFFLINE) forbids every connection."""
    names = ("POPHOOD_OFFLINE", "HF_HUB_OFFLINE")
    return any(
        os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off") for name in names
    )


def unicode_ok(stream: TextIO) -> bool:
    """Whether a text stream's encoding has the bars, boxes and marks that tables use (cp1252 has not)."""
    try:
        "█▌▏│─→…·".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def colour_ok(stream: TextIO) -> bool:
    """Whether colour may be written: a terminal, that is not dumb, of a person who did not set NO_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()
