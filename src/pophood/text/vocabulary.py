"""Vocabulary: what each id stands for, in bytes. How text becomes ids is the encoders' business.

Two spellings exist. In "bytes" (GPT-2) a token is written in the byte alphabet of `byte_level.py`. In
"spaces" (SentencePiece) it is written as itself with U+2581 for the space, and `<0xE2>` is one byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from pophood.errors import BadFile, BadInput
from pophood.text.byte_level import spell, unspell

Spelling = Literal["bytes", "spaces"]

SPACE_MARK = "\u2581"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MOST_IDS = 4_000_000  # the largest published vocabularies have about 256,000
_LONE_BYTE = re.compile("[\udc80-\udcff]")  # how "surrogateescape" decodes a byte of no whole character
_ESCAPE = re.compile(rb"\\x([0-9A-Fa-f]{2})")


class Vocabulary:
    """Ids, their bytes, and which of them are special (control tokens, hidden in text)."""

    def __init__(
        self,
        ids: dict[str, int],
        spelling: Spelling,
        *,
        specials: Iterable[str] = (),
        literals: Iterable[str] = (),
        byte_tokens: bool = False,
    ) -> None:
        """`ids`: token as the file spells it -> id; `specials` and `literals` are spelled as plain text."""
        self.ids = ids
        self.spelling = spelling
        self.byte_tokens = byte_tokens
        self.size = _checked_size(ids)
        self.tokens: dict[int, str] = dict(zip(ids.values(), ids, strict=True))
        if len(self.tokens) != len(ids):
            raise BadFile(f"the vocabulary gives one id to two tokens: {_shared_id(ids)}")
        self.specials: dict[int, str] = {ids[token]: token for token in specials}
        self._plain = {ids[token] for token in literals} | self.specials.keys()
        self._pieces: dict[int, bytes] = {}

    def piece(self, id_: int) -> bytes:
        """The bytes of one token; b"" for an id that the model has and the vocabulary has not.

        Models pad their matrices to round sizes, so such ids can come out of one. Negative ids: BadInput.
        """
        known = self._pieces.get(id_)
        if known is None:
            if id_ < 0:
                raise BadInput(f"token id {id_} is negative; ids run from 0 to {self.size - 1:,}")
            known = self._pieces[id_] = self._spelled_out(id_)
        return known

    def display(self, id_: int) -> str:
        r"""One token for people: spaces kept, bytes of no whole character as \xE2, no token as [151700]."""
        if id_ in self.specials:
            return self.specials[id_]
        if id_ not in self.tokens:
            self.piece(id_)  # a negative id is an error
            return f"[{id_}]"
        shown = self.piece(id_).decode("utf-8", "surrogateescape")
        return _LONE_BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02X}", shown)

    def find(self, text: str) -> int | None:
        r"""The id whose token is exactly this text (" Madrid", "<|im_end|>", "\xE2"), else None."""
        for id_, special in self.specials.items():
            if special == text:
                return id_
        data = text.encode("utf-8", "replace")
        found = self._find_bytes(data)
        if found is None and _ESCAPE.search(data):
            found = self._find_bytes(_ESCAPE.sub(lambda byte: bytes([int(byte[1], 16)]), data))
        return found

    def _spelled_out(self, id_: int) -> bytes:
        token = self.tokens.get(id_, "")
        if id_ in self._plain:
            return token.encode("utf-8", "replace")
        if self.spelling == "bytes":
            return unspell(token)
        byte = BYTE_TOKEN.fullmatch(token) if self.byte_tokens else None
        if byte is not None:
            return bytes([int(byte[1], 16)])
        return token.replace(SPACE_MARK, " ").encode("utf-8", "replace")

    def _find_bytes(self, data: bytes) -> int | None:
        plain = data.decode("utf-8", "replace")
        written = spell(data) if self.spelling == "bytes" else plain.replace(" ", SPACE_MARK)
        candidates = [written, plain, f"<0x{data[0]:02X}>" if len(data) == 1 else ""]
        for token in candidates:
            id_ = self.ids.get(token)
            if id_ is not None and self.piece(id_) == data:
                return id_
        return None


def _checked_size(ids: Mapping[str, int]) -> int:
    if not ids:
        raise BadFile("the vocabulary is empty")
    lowest, highest = min(ids.values()), max(ids.values())
    if lowest < 0 or highest >= min(MOST_IDS, 100_000 + 4 * len(ids)):
        raise BadFile(f"the vocabulary has {len(ids):,} tokens, with ids from {lowest} to {highest}")
    return highest + 1


def _shared_id(ids: Mapping[str, int]) -> str:
    seen: dict[int, str] = {}
    for token, id_ in ids.items():
        if id_ in seen:
            return f"{seen[id_][:40]!r} and {token[:40]!r} have id {id_}"
        seen[id_] = token
    return ""
