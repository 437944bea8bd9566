"""The key of a server: where it comes from, how it is compared, and how a browser gets in without typing it.

A browser opens a link with a token that works once and becomes a cookie, as in Jupyter. The cookie is a time
and a signature: nothing is kept for it, and cookies end with the server unless its secret is kept (`studio`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shlex
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pophood.errors import BadFile, BadInput, NotFound

VARIABLE = "POPHOOD_API_KEY"
RANDOM_BYTES = 24
LONGEST = 512  # characters of a key
SHORTEST_OPEN = 16  # of a key that other machines may try
LONGEST_VISIT = 30 * 86400  # seconds that a browser's cookie is taken

Origin = Literal["file", "environment", "random"]


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """The key that requests must carry. Its text is never logged: `repr` leaves it out."""

    text: str
    origin: Origin
    path: Path | None = None

    def __repr__(self) -> str:
        return f"Key(origin={self.origin!r})"

    @property
    def own(self) -> bool:
        """True if the user chose it."""
        return self.origin != "random"

    @property
    def shell(self) -> str:
        """The key as a command writes it: the text of a random key, else where the shell finds it.

        >>> Key("secret", "environment").shell
        '$POPHOOD_API_KEY'
        """
        if self.origin == "environment":
            return f"${VARIABLE}"
        return f"$(cat {shlex.quote(str(self.path))})" if self.origin == "file" else self.text

    def matches(self, text: str) -> bool:
        """Compare in a time that does not depend on how much of `text` is right, nor on its length."""
        return hmac.compare_digest(_digest(text), _digest(self.text))


def choose_key(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Key:
    """Return the key in a file, else that of POPHOOD_API_KEY, else 24 random bytes in hexadecimal.

    Raises NotFound, BadFile for a file that others can read, BadInput for a key that no header can carry.
    """
    if path is not None:
        return Key(_checked(_read(path), str(path)), "file", path.absolute())
    if environment.get(VARIABLE):
        return Key(_checked(environment[VARIABLE], VARIABLE), "environment")
    return Key(secrets.token_hex(RANDOM_BYTES), "random")


def check_open(key: Key, host: str) -> None:
    """Raise BadInput if other machines could reach the server with a key that its user did not choose."""
    if not key.own:
        raise BadInput(
            f"--host {host} lets other machines in: choose a key of your own first, in a file of mode 0600 "
            f"(--key-file) or in {VARIABLE}"
        )
    if len(key.text) < SHORTEST_OPEN:
        raise BadInput(
            f"--host {host} lets other machines in, and the key has {len(key.text)} characters: choose one "
            f"of at least {SHORTEST_OPEN}"
        )


class Sessions:
    """The browsers that opened the server's link, whose `link_token` works once and becomes a cookie.

    Cookies are signed with `secret`. A server that starts with the same one, and the same port, knows them
    again for `LONGEST_VISIT` seconds; without one they end with this server and with the browser.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self.link_token: str | None = secrets.token_hex(RANDOM_BYTES)
        self.kept = secret is not None
        self._secret = secret or secrets.token_bytes(RANDOM_BYTES)

    def enter(self, token: str) -> str | None:
        """Use up the link's token, and return the value of a new cookie; None for a wrong or used token."""
        expected = self.link_token
        if expected is None or not hmac.compare_digest(_digest(token), _digest(expected)):
            return None
        self.link_token = None
        words = f"{int(time.time()) + LONGEST_VISIT}.{secrets.token_hex(RANDOM_BYTES)}"
        return f"{words}.{self._signature(words)}"

    def holds(self, value: str) -> bool:
        """Return whether a cookie's value was signed with the secret, and its time has not passed."""
        words, _, signature = value.rpartition(".")
        if not hmac.compare_digest(_digest(signature), _digest(self._signature(words))):
            return False
        return int(words.partition(".")[0]) > time.time()

    def _signature(self, words: str) -> str:
        return hmac.new(self._secret, words.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise BadFile(
                    f"{path}: others can read this key (mode {stat.S_IMODE(mode):04o}, wanted 0600): "
                    f"run chmod 600 {path}"
                )
            content = file.read(LONGEST + 8)
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such key file; make one with mode 0600") from None
    except IsADirectoryError:
        raise BadFile(f"{path}: got a folder, wanted a file that holds a key") from None
    return content.decode("utf-8", "replace").strip()


def _checked(text: str, place: str) -> str:
    text = text.strip()
    if not text or len(text) > LONGEST or not all("!" <= character <= "~" for character in text):
        raise BadInput(
            f"the key in {place} cannot be sent in a header; wanted 1 to {LONGEST} characters of ASCII "
            "without spaces"
        )
    return text
