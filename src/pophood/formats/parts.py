"""File names of models in several files. No file is opened here.

    model-00001-of-00004.safetensors            shards, with or without an index
    model-00001-of-00002.gguf                   parts that llama.cpp's gguf-split writes, each a GGUF file
    model.gguf.part00  model.gguf-split-a       pieces of one file's bytes, to be joined by hand

The first two follow one pattern (`llama_split_path` in llama.cpp, `save_pretrained` in transformers), so the
names of all parts follow from the name of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pophood.errors import quoted

MAX_PARTS = 512  # every mapped part holds a file descriptor, and 1,024 is a common limit

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf|\.safetensors)")
_PIECE = re.compile(
    r"(?P<whole>.+\.(?:gguf|safetensors))[.-](?:(?:part|split|chunk)[-_.]?)?(?:\d{1,4}(?:of\d+)?|[a-z]{1,2})",
    re.IGNORECASE,
)
_UNFINISHED = (
    *(".part", ".partial", ".incomplete", ".tmp", ".aria2"),
    *(".download", ".crdownload", ".opdownload"),  # of browsers
)


@dataclass(frozen=True, slots=True)
class Part:
    """The name of one part: `Part("model", 1, 2, ".gguf").name == "model-00001-of-00002.gguf"`."""

    stem: str
    number: int  # from 1
    count: int
    suffix: str

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.stem}-{self.number:05}-of-{self.count:05}{self.suffix}"

    @property
    def names(self) -> list[str]:
        """The names of all parts, in order."""
        return [replace(self, number=number).name for number in range(1, self.count + 1)]

    @property
    def first(self) -> str:
        """The name of the first part."""
        return replace(self, number=1).name


def part_of(name: str) -> Part | None:
    """Parse the name (or path) of a part or shard; None for the name of a whole file.

    >>> part_of("q4-00002-of-00003.gguf")
    Part(stem='q4', number=2, count=3, suffix='.gguf')
    """
    match = _PART.fullmatch(name)
    if match is None:
        return None
    part = Part(match["stem"], int(match["number"]), int(match["count"]), match["suffix"])
    return part if 1 <= part.number <= part.count <= MAX_PARTS else None


def one_of_each(names: Iterable[str]) -> list[str]:
    """Replace each group of parts by the name of its first part, which need not be in the list.

    >>> one_of_each(["a.gguf", "b-00002-of-00002.gguf", "b-00001-of-00002.gguf"])
    ['a.gguf', 'b-00001-of-00002.gguf']
    """
    parts = ((name, part_of(name)) for name in names)
    return list(dict.fromkeys(name if part is None else part.first for name, part in parts))


def piece_advice(name: str) -> str | None:
    """Return advice on a file whose name says that it is a piece or unfinished; None for other names.

    The bytes decide what a file is; the name only explains why they are not a model.

    >>> piece_advice("m.gguf.part00")
    "by its name a piece of 'm.gguf': join all pieces in order (cat FIRST SECOND ... > m.gguf)"
    """
    match = _PIECE.fullmatch(name)
    if match is not None:
        whole = quoted(match["whole"])
        return (
            f"by its name a piece of {whole}: join all pieces in order (cat FIRST SECOND ... > {whole[1:-1]})"
        )
    if name.lower().endswith(_UNFINISHED):
        return "by its name an unfinished download: let its program finish it, or fetch it again"
    return None
