"""Server-sent events, in the form that every known client reads. (small: one format)

JSON is written in ASCII, so that U+2028, U+0085 and others, at which some clients split lines, never occur in
it. A comment keeps a silent connection open; `: ping`, as other servers write it, ends one client's stream.
"""

from __future__ import annotations

import json
from typing import Any

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def event(data: Any, kind: str = "") -> bytes:
    """Return one event, perhaps with its kind. Raises ValueError for a number that JSON does not have.

    >>> event({"text": "a\\u2028b"})
    b'data: {"text":"a\\\\u2028b"}\\n\\n'
    """
    head = f"event: {kind}\n".encode("ascii") if kind else b""
    return head + b"data: " + compact(data) + b"\n\n"


def compact(data: Any) -> bytes:
    """Return JSON in ASCII, without spaces."""
    return _encode(data).encode("ascii")
