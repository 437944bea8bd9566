"""Vocabulary: the bytes that each token id stands for, and GPT-2's byte alphabet. Encoders are not here.

Vocabularies spell tokens in one of two ways. In "bytes" (GPT-2) a token is written in the byte alphabet:
every byte as one visible character, so that a vocabulary of bytes is a text file. In "spaces" (SentencePiece)
a token is written as itself, with U+2581 for the space, and `<0xE2>` is a single byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal

from pophood.errors import BadFile, BadInput

Spelling = Literal["bytes", "spaces"]

SPACE_MARK = "\u2581"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MOST_IDS = 4_000_000  # the largest published vocabularies have about 256,000
_LONE_BYTE = re.compile("[\udc80-\udcff]")  # how "surrogateescape" decodes a byte of an incomplete character
_ESCAPE = re.compile(rb"\\x([0-9A-Fa-f]{2})")


class Vocabulary:
    """Token ids, the bytes of each, and which tokens are special (control tokens, hidden in text)."""

    def __init__(
        self,
        ids: dict[str, int],
        spelling: Spelling,
        *,
        specials: Iterable[str] = (),
        literals: Iterable[str] = (),
        byte_tokens: bool = False,
    ) -> None:
        """`ids` maps each token, as the file spells it, to its id.

        `specials` and `literals` are spelled as plain text whatever `spelling` says. With `byte_tokens`, a
        token such as `<0xE2>` stands for one byte.
        """
        self.ids = ids
        self.spelling = spelling
        self.byte_tokens = byte_tokens
        self.tokens = _by_id(ids)
        self.size = max(self.tokens) + 1 if isinstance(self.tokens, dict) else len(self.tokens)
        self.specials: dict[int, str] = {ids[token]: token for token in specials}
        self._plain = {ids[token] for token in literals} | self.specials.keys()
        self._pieces: dict[int, bytes] = {}

    def piece(self, id_: int) -> bytes:
        """Return the bytes of one token, or b"" for an id that the vocabulary does not have.

        Models pad their matrices to round sizes, so they can produce such ids. A negative id is a BadInput.
        """
        known = self._pieces.get(id_)
        if known is None:
            if id_ < 0:
                raise BadInput(f"token id {id_} is negative; ids run from 0 to {self.size - 1:,}")
            known = self._pieces[id_] = self._spelled_out(id_)
        return known

    def display(self, id_: int) -> str:
        r"""Return one token for display: " Madrid", \xE2 for part of a character, [503] for an unused id."""
        if id_ in self.specials:
            return self.specials[id_]
        if self.spelling_of(id_) is None:
            self.piece(id_)  # raises for a negative id
            return f"[{id_}]"
        shown = self.piece(id_).decode("utf-8", "surrogateescape")
        return _LONE_BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02X}", shown)

    def find(self, text: str) -> int | None:
        r"""Return the id of the token with exactly this text (" Madrid", "<|im_end|>", "\xE2"), or None."""
        for id_, special in self.specials.items():
            if special == text:
                return id_
        data = text.encode("utf-8", "replace")
        id_or_none = self._find_bytes(data)
        if id_or_none is None and _ESCAPE.search(data):
            id_or_none = self._find_bytes(_ESCAPE.sub(lambda byte: bytes([int(byte[1], 16)]), data))
        return id_or_none

    def spelling_of(self, id_: int) -> str | None:
        """Return a token as the file spells it, or None for an id without one."""
        if isinstance(self.tokens, dict):
            return self.tokens.get(id_)
        return self.tokens[id_] if 0 <= id_ < self.size else None

    def _spelled_out(self, id_: int) -> bytes:
        token = self.spelling_of(id_) or ""
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


def _by_id(ids: Mapping[str, int]) -> dict[int, str] | list[str]:
    """Return the tokens by id: as a list where they stand in order, without unused ids."""
    if not ids:
        raise BadFile("the vocabulary is empty")
    if len(ids) < MOST_IDS and list(ids.values()) == list(range(len(ids))):
        return list(ids)
    lowest, highest = min(ids.values()), max(ids.values())
    if lowest < 0 or highest >= min(MOST_IDS, 100_000 + 4 * len(ids)):
        raise BadFile(f"the vocabulary has {len(ids):,} tokens, with ids from {lowest} to {highest}")
    tokens = dict(zip(ids.values(), ids, strict=True))
    if len(tokens) != len(ids):
        one = next(token for token, id_ in ids.items() if tokens[id_] != token)
        both = f"{one[:40]!r} and {tokens[ids[one]][:40]!r} have id {ids[one]}"
        raise BadFile(f"the vocabulary gives one id to two tokens: {both}")
    return tokens


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for any of these texts, preferring the longest; without texts it never matches."""
    longest_first = sorted((text for text in texts if text), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


# The byte alphabet of GPT-2 ----------------------------------------------------------------------------


@cache
def byte_characters() -> tuple[str, ...]:
    """Return the character of each byte in GPT-2's alphabet, indexed by byte.

    A byte that prints (33-126, 161-172, 174-255) is written as itself; the other 68 are written, in order, as
    the characters from U+0100 on. So the space (32) is U+0120 and the line feed (10) is U+010A.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("A")]
    ('Ġ', 'A')
    """
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 256 + 256 - len(printed)))
    return tuple(chr(byte) if byte in printed else chr(next(others)) for byte in range(256))


@cache
def character_bytes() -> dict[str, int]:
    """Return the byte of each character: the inverse of `byte_characters`."""
    return {character: byte for byte, character in enumerate(byte_characters())}


def spell(data: bytes) -> str:
    """Write bytes in GPT-2's alphabet.

    >>> spell("é".encode())
    'Ã©'
    """
    characters = byte_characters()
    return "".join([characters[byte] for byte in data])


def unspell(token: str) -> bytes:
    """Return the bytes that a token of the alphabet stands for.

    A token with characters outside the alphabet stands for its own UTF-8.

    >>> unspell("ĠMadrid"), unspell("日")
    (b' Madrid', b'\\xe6\\x97\\xa5')
    """
    known = character_bytes()
    try:
        return bytes([known[character] for character in token])
    except KeyError:
        return token.encode("utf-8", "replace")
