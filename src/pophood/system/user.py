"""The user's environment: folders, switches, and the abilities of the console."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TextIO

from pophood.errors import BadInput

MISSING = "does not exist"


def home() -> Path:
    """Return the folder for models and settings: POPHOOD_HOME, else the system's folder for user data."""
    chosen = os.environ.get("POPHOOD_HOME")
    if chosen:
        return _from_variable("POPHOOD_HOME", chosen)
    from platformdirs import user_data_path

    return user_data_path("pophood", appauthor=False)


def model_folders() -> list[Path]:
    """Return the folders to search for models: those of POPHOOD_MODELS (read only), then `home()/models`."""
    shared = os.environ.get("POPHOOD_MODELS", "")
    folders = [_from_variable("POPHOOD_MODELS", part) for part in shared.split(os.pathsep) if part.strip()]
    return [*folders, home() / "models"]


def check_folders() -> None:
    """Raise BadInput for an unusable folder of POPHOOD_MODELS or an unusable home (see `check_home`).

    A shared folder may be missing, since it may be on a disk that is not always mounted.
    """
    for folder in model_folders()[:-1]:
        reason = folder_fault(folder)
        if reason and reason != MISSING:
            raise BadInput(
                f"POPHOOD_MODELS names {folder}, which {reason}: name a folder that you can read, or unset it"
            )
    check_home()


def check_home() -> None:
    """Raise BadInput, with the reason, if pophood's home or the model folder in it cannot be used.

    A home that does not exist yet is fine if it can be created. Without this check, a mistyped POPHOOD_HOME
    or one of another user would look like a machine without models, and models would be fetched again.
    """
    folder, chosen = home(), bool(os.environ.get("POPHOOD_HOME"))
    reason = folder_fault(folder)
    if reason == MISSING:
        if not chosen or os.access(nearest_folder(folder), os.W_OK | os.X_OK):
            return
        reason = "does not exist and cannot be created"
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
    """Say why a folder cannot be listed (MISSING if it does not exist), or return None if it can."""
    try:
        with os.scandir(folder):
            return None if os.access(folder, os.X_OK) else "can be listed by this user, but not opened"
    except FileNotFoundError:
        return "is a link to nothing" if folder.is_symlink() else MISSING
    except NotADirectoryError:
        return "is a file, or below one"
    except PermissionError:
        return "cannot be read by this user"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link in a loop of links"
        return f"cannot be listed ({error.strerror})"


def nearest_folder(path: Path) -> Path:
    """Return `path` if it exists, else the nearest of its parents that does."""
    return next((place for place in (path, *path.parents) if place.exists()), path)


def offline() -> bool:
    """Return whether POPHOOD_OFFLINE (or Hugging Face's own HF_HUB_OFFLINE) forbids every connection."""
    names = ("POPHOOD_OFFLINE", "HF_HUB_OFFLINE")
    return any(
        os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off") for name in names
    )


def unicode_ok(stream: TextIO) -> bool:
    """Return whether a stream's encoding has the bars, boxes and marks that tables use (cp1252 does not)."""
    try:
        "█▌▏│─→…·".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def colour_ok(stream: TextIO) -> bool:
    """Return whether to write colour: to a terminal that is not dumb, unless NO_COLOR is set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()
