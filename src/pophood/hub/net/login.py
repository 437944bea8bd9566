"""The user's login for a hub: HF_TOKEN, or the token that `hf auth login` saved on this machine.

HF_TOKEN is sent to the hub that HF_ENDPOINT names, since the user set both. The saved login belongs to
huggingface.co: for any other hub it is not even read. The file it is in, and the switch that turns it off,
follow huggingface_hub (constants.py, utils/_auth.py). `web.py` sends a login to the hub's own origin only,
never along a redirect.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pophood.hub.cache import hf_home, path_in
from pophood.hub.net.connect import port_of, split_address

MOST_TOKEN_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Login:
    """A token, with its origin for messages."""

    token: str = field(repr=False)
    origin: str  # "HF_TOKEN", or "the login saved in ~/.cache/huggingface/token"
    saved: bool = False  # read from a file, not asked for explicitly


def login_for(endpoint: str, hub: str) -> Login | None:
    """Return the login for the hub at an endpoint; `hub` is the address that a saved login belongs to."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = os.environ.get(variable, "").strip()
        if token:
            return Login(token, variable)
    switched_off = os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").strip().upper()
    if switched_off in ("1", "ON", "YES", "TRUE") or not same_origin(endpoint, hub):
        return None
    path = token_path()
    try:
        if not path.is_file() or path.stat().st_size > MOST_TOKEN_BYTES:
            return None
        token = "".join(path.read_text("ascii").split())
    except (OSError, UnicodeDecodeError):  # not readable, or not a token
        return None
    return Login(token, f"the login saved in {path}", saved=True) if token else None


def token_path() -> Path:
    """Return the file where `hf auth login` saves the token: HF_TOKEN_PATH, HF_HOME/token, or the default."""
    return path_in("HF_TOKEN_PATH") or hf_home() / "token"


def same_origin(one: str, other: str) -> bool:
    """Return whether two addresses have the same scheme, host and port."""
    ours, theirs = split_address(one), split_address(other)
    return (ours.scheme, ours.hostname, port_of(ours)) == (theirs.scheme, theirs.hostname, port_of(theirs))
