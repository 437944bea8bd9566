"""The keys `tokenizer.ggml.*` of a GGUF file, each with the type it must have. What they mean is not here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pophood.errors import BadFile

PREFIX = "tokenizer.ggml."


class Keys:
    """One file's keys by their names without the prefix; BadFile for a value of the wrong type.

    Example: `Keys(metadata).text("model") == "gpt2"`.
    """

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata

    def text(self, key: str) -> str | None:
        """A text, or None without the key."""
        value = self._get(key)
        if value is not None and not isinstance(value, str):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {type(value).__name__}, not text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false; `default` without the key."""
        value = self._get(key)
        if value is not None and not isinstance(value, bool):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not true or false")
        return default if value is None else value

    def id(self, key: str, size: int) -> int | None:
        """A token's id; None without the key, and for an id that no token has."""
        value = self._get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not an id")
        # llama.cpp drops an id without a token; 2^32 - 1 is how converters write "none"
        return value if 0 <= value < size else None

    def texts(self, key: str) -> list[str]:
        """A list of texts, which the file must have."""
        value = self._list(key)
        if value is None:
            raise BadFile(f"the GGUF file has no {PREFIX}{key}: take another conversion of the model")
        if not set(map(type, value)) <= {str}:
            raise BadFile(f"{PREFIX}{key} of the GGUF file is not a list of texts")
        return value

    def integers(self, key: str, size: int) -> list[int] | None:
        """`size` whole numbers; None without the key."""
        value = self._list(key, size)
        if value is not None and not set(map(type, value)) <= {int}:
            raise BadFile(f"{PREFIX}{key} of the GGUF file is not a list of whole numbers")
        return value

    def numbers(self, key: str, size: int) -> list[float] | None:
        """`size` finite numbers; None without the key."""
        value = self._list(key, size)
        if value is None:
            return None
        if not set(map(type, value)) <= {int, float} or not all(map(math.isfinite, value)):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is not a list of finite numbers")
        return value

    def _get(self, key: str) -> object:
        return self._metadata.get(PREFIX + key)

    def _list(self, key: str, size: int | None = None) -> list[Any] | None:
        value = self._get(key)
        if value is None:
            return None
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {type(value).__name__}, not a list")
        if size is not None and len(items) < size:
            raise BadFile(f"{PREFIX}{key} of the GGUF file has {len(items):,} entries for {size:,} tokens")
        return items if size is None else items[:size]
