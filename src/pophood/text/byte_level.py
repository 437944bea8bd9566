"""GPT-2's byte alphabet: every byte as one visible character, so that a vocabulary of bytes is a text file.

A byte that prints (33-126, 161-172, 174-255) is written as itself; the 68 others are written, in order, as
the characters from U+0100 on. The space (32) becomes U+0120 and the line feed (10) U+010A.
"""

from __future__ import annotations

from functools import cache


@cache
def byte_characters() -> tuple[str, ...]:
    """The character of each byte, by byte.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("A")]
    ('Ġ', 'A')
    """
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 256 + 256 - len(printed)))
    return tuple(chr(byte) if byte in printed else chr(next(others)) for byte in range(256))


@cache
def character_bytes() -> dict[str, int]:
    """The byte of each character: `byte_characters` the other way round."""
    return {character: byte for byte, character in enumerate(byte_characters())}


def spell(data: bytes) -> str:
    """Bytes in GPT-2's alphabet.

    >>> spell("é".encode())
    'Ã©'
    """
    characters = byte_characters()
    return "".join([characters[byte] for byte in data])


def unspell(token: str) -> bytes:
    """The bytes that a token of the alphabet stands for; a token with other characters stands for itself.

    >>> unspell("ĠMadrid"), unspell("日")
    (b' Madrid', b'\\xe6\\x97\\xa5')
    """
    known = character_bytes()
    try:
        return bytes([known[character] for character in token])
    except KeyError:
        return token.encode("utf-8", "replace")
