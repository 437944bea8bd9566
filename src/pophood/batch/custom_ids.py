"""CustomIds: the ids of OpenAI's lines so far, since each may occur once in a batch. (small: one class)"""

from __future__ import annotations

import hashlib

from pophood.errors import quoted
from pophood.openai.errors import ApiError, invalid


class CustomIds:
    """The custom_ids of a run's lines, as hashes: 100 bytes of memory each, however long they are."""

    def __init__(self) -> None:
        self._lines: dict[bytes, int] = {}

    def add(self, custom_id: str, line: int) -> ApiError | None:
        """Note the id of a line; return an error that names both lines if an earlier one has it."""
        digest = hashlib.sha256(custom_id.encode(errors="surrogatepass")).digest()[:16]
        first = self._lines.setdefault(digest, line)
        if first == line:
            return None
        message = f"custom_id: {quoted(custom_id[:80])} of line {line:,} is that of line {first:,} already"
        return invalid(message, "custom_id", "duplicate_custom_id")
