"""Files of training data that a page has sent: kept in one folder, under the names that they had."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pophood.errors import quoted
from pophood.openai.errors import INVALID, MISSING, ApiError, invalid
from pophood.system.files import free_disk, replace, unique

LARGEST = 2 << 30  # bytes of one file
SPARE = 256 << 20  # bytes that stay free on the disk
_NAME = re.compile(r"[^./\\\x00-\x1f\x7f<>:\"|?*][^/\\\x00-\x1f\x7f<>:\"|?*]{0,119}")


class DataFiles:
    """The files in a folder. Raises ApiError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def listed(self) -> list[dict[str, Any]]:
        """Return the files by name, with their sizes."""
        if not self._folder.is_dir():
            return []
        found = sorted(path for path in self._folder.iterdir() if not path.name.startswith("."))
        return [{"name": path.name, "size": path.stat().st_size} for path in found]

    def path(self, name: str) -> Path:
        """Return the place of a file that is there."""
        path = self._folder / _checked(name)
        if not path.is_file():
            raise ApiError(404, f"there is no file {quoted(name)}: send it first", MISSING)
        return path

    async def take(self, name: str, parts: AsyncIterator[bytes]) -> dict[str, Any]:
        """Write a file as it arrives; it is there when it is whole, and takes the place of an older one."""
        target = self._folder / _checked(name)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        room = min(LARGEST, free_disk(self._folder) - SPARE)
        temporary = self._folder / f".{unique()}.tmp"
        size = 0
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                async for part in parts:
                    size += len(part)
                    if size > room:
                        message = f"{quoted(name)} is larger than the {max(room, 0):,} bytes that fit here"
                        raise ApiError(413, message, INVALID, code="body_too_large")
                    file.write(part)
            replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink()
        return {"name": name, "size": size}

    def delete(self, name: str) -> None:
        """Delete a file."""
        self.path(name).unlink()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise invalid(f"name: got {quoted(name)}; wanted the name of a file, without folders", "name")
    return name
