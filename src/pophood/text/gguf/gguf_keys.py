"""Typed access to the keys `tokenizer.ggml.*` of a GGUF file. The meaning of the keys is not known here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pophood.errors import BadFile

PREFIX = "tokenizer.ggml."


class Keys:
    """The keys of one file by name, without the prefix; a value of the wrong type is a BadFile.

    Example: `Keys(metadata).text("model") == "gpt2"`.
    """

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata

    def text(self, key: str) -> str | None:
        """Return a text, or None without the key."""
        value = self._get(key)
        if value is not None and not isinstance(value, str):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {type(value).__name__}, not text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean, or `default` without the key."""
        value = self._get(key)
        if value is not None and not isinstance(value, bool):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not true or false")
        return default if value is None else value

    def id(self, key: str, size: int) -> int | None:
        """Return a token's id; None without the key, or for an id that no token has."""
        value = self._get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not an id")
        # llama.cpp drops an id without a token too; converters write 2^32 - 1 for "none"
        return value if 0 <= value < size else None

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; BadFile without the key."""
        texts = self._list(key, {str}, "texts")
        if texts is None:
            raise BadFile(f"the GGUF file has no {PREFIX}{key}: take another conversion of the model")
        return texts

    def integers(self, key: str, size: int) -> list[int] | None:
        """Return `size` whole numbers, or None without the key."""
        return self._list(key, {int}, "whole numbers", size)

    def numbers(self, key: str, size: int) -> list[float] | None:
        """Return `size` finite numbers, or None without the key."""
        return self._list(key, {int, float}, "finite numbers", size)

    def _get(self, key: str) -> object:
        return self._metadata.get(PREFIX + key)

    def _list(self, key: str, types: set[type], what: str, size: int | None = None) -> list[Any] | None:
        value = self._get(key)
        if value is None:
            return None
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {type(value).__name__}, not a list")
        if size is not None and len(items) < size:
            raise BadFile(f"{PREFIX}{key} of the GGUF file has {len(items):,} entries for {size:,} tokens")
        items = items[:size]
        given = set(map(type, items))
        if not given <= types or (float in given and not all(map(math.isfinite, items))):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is not a list of {what}")
        return items
