"""The secret behind the studio's cookies: a file that only its owner can read. (small: one file)

It is kept so that a page that is open in a browser goes on after a restart of the server. Who can read it can
sign cookies, and so has the model and the history; but whoever reads this folder has the history anyway.
Deleting the file signs every browser out.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path

from pophood.errors import BadFile
from pophood.system import disk_errors

BYTES = 32


def studio_secret(folder: Path) -> bytes:
    """Return the secret kept in a folder, or make one. Raises BadFile if others can read it."""
    path = folder / "secret"
    with disk_errors(path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _read(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(made := secrets.token_bytes(BYTES))
    return made


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(BYTES + 1)
    if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadFile(f"{path}: others can read this secret (mode {stat.S_IMODE(mode):04o}): delete the file")
    if len(content) != BYTES:
        raise BadFile(f"{path}: got {len(content)} bytes, wanted {BYTES}: delete the file")
    return content
