"""Texts that are hard for tokenizers: every plane of Unicode, odd white space, long runs, real prose.

`strings(n, seed)` makes the same n valid strings every time, of eight kinds, so that a mistake in one kind of
character cannot hide in an average.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROSE = (Path(__file__).parent.parent / "data" / "wikitext2" / "valid-20000.txt").read_text(encoding="utf-8")

Codes = NDArray[np.uint32]

# Letters and digits that Unicode 16 and 17 added. llama.cpp's tables are older and take them for symbols; the
# tokenizers library knows them. Where llama.cpp is the authority these are left out.
NEWER_THAN_LLAMA_CPP = (
    *[(0x1C89, 0x1C8A), (0xA7CB, 0xA7CD), (0xA7DA, 0xA7DC), (0x105C0, 0x105F3), (0x10D40, 0x10D85)],
    *[(0x10EC2, 0x10EC7), (0x11380, 0x113E2), (0x116D0, 0x116E3), (0x11BC0, 0x11BF9), (0x11DB0, 0x11DE9)],
    *[(0x13460, 0x143FA), (0x16100, 0x16139), (0x16D40, 0x16D79), (0x16EA0, 0x16ED3), (0x16FF4, 0x16FF6)],
    *[(0x18CFF, 0x18CFF), (0x18D09, 0x18D1E), (0x1CCF0, 0x1CCF9), (0x1E5D0, 0x1E5FA), (0x1E6C0, 0x1E6FF)],
    *[(0x187F8, 0x187FF), (0x2A6E0, 0x2A6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD), (0x323B0, 0x33479)],
    *[(0x088F, 0x088F), (0x0C5C, 0x0C5C), (0x0CDC, 0x0CDC), (0xA7CE, 0xA7D4), (0xA7F1, 0xA7F1)],
    *[(0x10940, 0x10959), (0x11B60, 0x11B67)],
)
# The same for marks, punctuation and symbols, which some pre-tokenizers distinguish.
NEWER_SIGNS = (
    *[(0x0897, 0x0897), (0x1B4E, 0x1B4F), (0x1B7F, 0x1B7F), (0x2427, 0x2429), (0x31E4, 0x31E5)],
    *[(0x10D69, 0x10D6E), (0x10D8E, 0x10D8F), (0x10EFC, 0x10EFC), (0x11F5A, 0x11F5A)],
    *[(0x16D6D, 0x16D6F), (0x1CC00, 0x1CEB3), (0x1E5EE, 0x1E5FF), (0x1F8B2, 0x1F8C1)],
    *[(0x1FA89, 0x1FA8F), (0x1FABE, 0x1FAE9), (0x1FBCB, 0x1FBEF)],
)
# Characters of every kind that a pre-tokenizer may distinguish: letters by case and script, marks, digits,
# punctuation, symbols, white space, controls.
CUT_CHARACTERS = (
    *map(chr, range(0x20, 0x7F)),
    *"\n\r\t\x00\x1c\x7f\x85\xa0\u2003\u2028\u3000",
    *"éÉßſµǅʰʁºªΩωжЖאب日本ーかカ한ㄅᄀ\u0f00\U00010400\U0001d7d8",
    *"\u0301\u0941\u094d\u0e31\u20dd\ufe0f",
    *"½²Ⅷ٣५〇",
    *"«»…、。，۔،।‘’“”—！～：$£€¬°©×ˆ´￥😀\u200d\u200b\ufeff\ufffd\ue000\u0378",
)
SPACES = np.array(
    [
        *[*range(9, 14), 28, 29, 30, 31, 32, 32, 32, 32, 0x85, 0xA0, 0x1680, 0x180E, *range(0x2000, 0x2010)],
        *[0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF],
    ],
    dtype=np.uint32,
)
ASCII = np.array([*range(32, 127), *b"\n\n\t\r'''    "], dtype=np.uint32)
FRAGMENTS = (
    *[
        "'s",
        "'S",
        "'re",
        "'RE",
        "'Ll",
        "'\u017f",
        "'d'll",
        "don't",
        "IT'S",
        "<|endoftext|>",
        "<|im_end|>",
        "<s>",
    ],
    *[
        "</s>",
        "<unk>",
        "<0x41>",
        "\u2581",
        " \u2581",
        "1234567",
        "3.14",
        "\u0661\u0662\u0663",
        "\u00bd\u00b2\u2167",
    ],
    *[
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "e\u0301",
        "\u0915\u094d\u0937",
        "\r\n",
        "\n\n",
        " \n ",
        "\x00",
    ],
    *[
        "\u65e5\u672c\u8a9e",
        "\ud55c\uad6d\uc5b4",
        "\u0645\u0631\u062d\u0628\u0627",
        "\ufffd",
        "\x7f",
        "\u0085",
    ],
    *[
        "http://x.y/z?a=b&c",
        "a_b-c+d",
        "qzqz qzqzq qzqz",
        "  def f(x):\n\treturn x\n",
        "!!!???",
        "---",
        "...",
        "==",
        "'''",
        '"""',
    ],
)


@functools.cache
def all_codes(without: tuple[tuple[int, int], ...] = ()) -> Codes:
    """Return every code point of every plane, except surrogates."""
    keep = np.ones(0x110000, dtype=bool)
    for first, last in ((0xD800, 0xDFFF), *without):
        keep[first : last + 1] = False
    return np.flatnonzero(keep).astype(np.uint32)


def strings(
    count: int, seed: int, without: tuple[tuple[int, int], ...] = (), codes: Codes | None = None
) -> Iterator[str]:
    """Return `count` valid strings.

    `without` excludes ranges of code points, `codes` are those to draw from.
    """
    codes = all_codes(without) if codes is None else codes
    allowed = np.zeros(0x110000, dtype=bool)
    allowed[codes] = True
    fragments = [text for text in FRAGMENTS if allowed[list(map(ord, text))].all()]
    pools = (codes, codes[codes < 0x3000], SPACES[allowed[SPACES]], ASCII[allowed[ASCII]])
    draw = _Draw(pools, seed)
    rng = random.Random(seed)
    for _ in range(count):
        kind, size = rng.randrange(8), 1 + min(int(rng.expovariate(1 / 14)), 200)
        if kind < 4:  # one pool
            yield draw.text(kind, size)
        elif kind == 4:  # pools mixed character by character
            yield "".join(draw.text(rng.randrange(4), 1) for _ in range(min(size, 24)))
        elif kind == 5:  # a long run of one or two characters
            yield draw.text(rng.randrange(4), rng.randrange(1, 3)) * min(
                1 + int(rng.expovariate(1 / 16)), 300
            ) + draw.text(3, 2)
        elif kind == 6:  # fragments with a meaning for some tokenizer
            yield rng.choice(("", " ", "  ")).join(rng.choices(fragments, k=min(size, 8)))
        else:  # prose
            start = rng.randrange(len(PROSE) - 800)
            yield PROSE[start : start + size * 2]


class _Draw:
    """Draws random characters from several pools, a hundred thousand at a time."""

    def __init__(self, pools: tuple[Codes, ...], seed: int) -> None:
        self._pools, self._rng = pools, np.random.default_rng(seed)
        self._drawn, self._used = [""] * len(pools), [0] * len(pools)

    def text(self, pool: int, size: int) -> str:
        start = self._used[pool]
        if start + size > len(self._drawn[pool]):
            self._drawn[pool], start = _text(self._rng.choice(self._pools[pool], 100_000)), 0
        self._used[pool] = start + size
        return self._drawn[pool][start : start + size]


def _text(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def cut_strings(count: int, seed: int) -> Iterator[str]:
    """Return `count` short texts of `CUT_CHARACTERS`: mixed kinds, long runs, contractions, numbers."""
    rng = random.Random(seed)
    usual = "aBé 1\n'/!\u3000日"
    for _ in range(count):
        pieces = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.randrange(5)
            if kind == 0:
                pieces.append(rng.choice(CUT_CHARACTERS))
            elif kind == 1:
                pieces.append(rng.choice(CUT_CHARACTERS) * rng.randint(1, 6))
            elif kind == 2:
                pieces.append(
                    rng.choice(("'s", "'LL", "'ſ", "'t", "1234", "12", "camelCase", "\r\n", "   ", "ÉCOLE"))
                )
            else:
                pieces.append("".join(rng.choices(usual, k=rng.randint(1, 4))))
        yield "".join(pieces)


def batches(texts: Iterator[str], size: int = 2_000) -> Iterator[list[str]]:
    """Yield the texts in lists, for authorities that take many at once."""
    while batch := list(itertools.islice(texts, size)):
        yield batch
