"""FolderSettings: the small JSON files beside a folder's vocabulary, read once, and what they declare.

Which file counts is what transformers 5.23 decides: added_tokens.json and special_tokens_map.json count where
tokenizer_config.json has no `added_tokens_decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pophood.errors import BadFile
from pophood.formats.json_file import optional_json

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")


class FolderSettings:
    """The JSON files of a model folder, each optional: a missing file reads as {}.

    Example: `FolderSettings(Path("models/gpt2")).names["eos_token"] == "<|endoftext|>"`.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        """`config` is the folder's config.json, if it was read already."""
        self.folder = folder
        self.config = optional_json(folder / "config.json") if config is None else config
        self.generation = optional_json(folder / "generation_config.json")
        self.tokenizer = optional_json(folder / "tokenizer_config.json")
        self.special_map = optional_json(folder / "special_tokens_map.json")
        self.added = optional_json(folder / "added_tokens.json")

    @property
    def lists_added_tokens(self) -> bool:
        """True if tokenizer_config.json lists the added tokens, so that the two older files do not count."""
        return "added_tokens_decoder" in self.tokenizer

    @cached_property
    def names(self) -> dict[str, str]:
        """The named special tokens: "bos_token" -> its text, and so on."""
        sources: tuple[Mapping[str, Any], ...] = (self.special_map, self.tokenizer)
        if self.lists_added_tokens:
            sources = (self.tokenizer, self.special_map)
        texts: dict[str, str] = {}
        for name in _NAMES:
            for source in sources:
                text = token_text(source.get(name))
                if text is not None:
                    texts.setdefault(name, text)
        return texts

    def unnamed_specials(self) -> dict[str, object]:
        """Return further special tokens that have no name: text -> entry as the file writes it."""
        entries: dict[str, object] = {}
        for source in (self.tokenizer, self.special_map):
            for key in _LISTS:
                value = source.get(key)
                value = list(value.values()) if isinstance(value, dict) else value
                for entry in value if isinstance(value, list) else ():
                    text = token_text(entry)
                    if text is not None:
                        entries.setdefault(text, entry)
        return entries

    def named_stops(self) -> Iterator[tuple[str, object]]:
        """Yield (file name, entry of its `eos_token_id`); an entry need not be an id."""
        for name, content in (("generation_config.json", self.generation), ("config.json", self.config)):
            value = content.get("eos_token_id")
            yield from ((name, entry) for entry in (value if isinstance(value, list) else [value]))

    def special_entries(self) -> dict[str, object]:
        """Return every special token, named ones first: text -> entry in the file that counts."""
        entries: dict[str, object] = {}
        sources = (self.tokenizer,) if self.lists_added_tokens else (self.tokenizer, self.special_map)
        for name, text in self.names.items():
            for source in sources:
                if token_text(source.get(name)) == text:
                    entries.setdefault(text, source[name])
        for text, entry in self.unnamed_specials().items():
            entries.setdefault(text, entry)
        return entries

    def added_entries(self) -> dict[str, dict[str, object]]:
        """Return the added tokens of the file that counts: id in digits -> the token and its flags."""
        if self.lists_added_tokens:
            declared = self.tokenizer["added_tokens_decoder"] or {}
            if not isinstance(declared, dict):
                raise BadFile("added_tokens_decoder of tokenizer_config.json is not an object")
            for key, entry in declared.items():
                if not isinstance(entry, dict) or not key.isdecimal():
                    raise BadFile(f"added_tokens_decoder of tokenizer_config.json has an entry {key[:60]!r}")
            return declared
        specials = {*self.names.values(), *self.unnamed_specials()}
        entries: dict[str, dict[str, object]] = {}
        for token, id_ in self.added.items():
            if type(id_) is not int or id_ < 0 or not token:
                raise BadFile(f"added_tokens.json gives {token[:60]!r} the id {str(id_)[:60]!r}")
            if str(id_) in entries:
                raise BadFile(f"added_tokens.json gives the id {id_} to two tokens")
            special = token in specials
            entries[str(id_)] = {"content": token, "special": special, "normalized": not special}
        return entries


def token_text(value: object) -> str | None:
    """Return the text of a token as these files write it: a text, or an object with the text as `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None
