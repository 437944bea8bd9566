"""What the user chose: the folders, the switches, and the console that reads along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO


def home() -> Path:
    """Where pophood keeps models and settings: POPHOOD_HOME, else the system's folder for user data."""
    chosen = os.environ.get("POPHOOD_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("pophood", appauthor=False)


def model_folders() -> list[Path]:
    """Where models are looked for, in order: POPHOOD_MODELS (only read), then `home()/models` (written)."""
    shared = os.environ.get("POPHOOD_MODELS", "")
    folders = [Path(part).expanduser().absolute() for part in shared.split(os.pathsep) if part.strip()]
    return [*folders, home() / "models"]


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
