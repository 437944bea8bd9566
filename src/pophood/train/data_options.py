"""What a reader of training data is told: frozen data, checked once. No reading here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pophood.errors import BadInput

Layout = Literal["text", "lines", "prompt", "messages", "alpaca", "sharegpt", "tasks"]
Format = Literal["auto", "text", "lines", "prompt", "messages", "alpaca", "sharegpt", "tasks"]

LAYOUTS: dict[str, str] = {
    "text": "one document per text file, or per record with `text`",
    "lines": "a text file whose every line is a document",
    "prompt": "records with `prompt` and `completion`",
    "messages": "records with `messages`: a list of {role, content} and perhaps `weight`",
    "alpaca": "records with `instruction`, `output` and perhaps `input`",
    "sharegpt": "records with `conversations`: a list of {from, value}",
    "tasks": "records with `instruction` and `instances`: a list of {input, output} (self-instruct)",
}


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How files become examples. Only `format`, `columns`, `completions_only`, `joined` and `special` change
    the ids; the rest is chosen when they are looked at, and needs no second reading."""

    format: Format = "auto"
    columns: Mapping[str, str] = field(
        default_factory=dict
    )  # our field -> the data's: {"prompt": "question"}
    completions_only: bool | None = None  # None: for prompts and chats yes, for plain text no
    joined: bool = False  # prompts and completions put together as they are, without a template
    special: bool = False  # special tokens typed in plain text count as such
    length: int = 1024  # positions of a row: what is longer is cut, or split
    long: Literal["auto", "cut", "split"] = "auto"  # auto: text is split, prompts and chats are cut
    validation: float = 0.1  # a share of the tokens, or from 1 on a number of documents
    validation_paths: tuple[Path, ...] = ()  # these files instead
    seed: int | None = None  # of the split; None: the run's, and 42 where there is no run
    strict: bool = False  # a bad line stops
    cache: Path | None = None  # where the ids are kept; None: the `data` folder of pophood's home

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise BadInput(f"format is {self.format!r}; wanted one of auto, {', '.join(LAYOUTS)}")
        if self.length < 2:
            raise BadInput(f"length must be at least 2, got {self.length}")
        if not 0 <= self.validation < math.inf or (self.validation > 1 and self.validation % 1):
            raise BadInput(
                f"validation is {self.validation:g}; wanted a share below 1, or a whole number of documents"
            )
        unknown = [name for name in self.columns if name not in FIELDS]
        if unknown:
            raise BadInput(f"columns names {unknown[0]!r}; wanted some of {', '.join(sorted(FIELDS))}")


FIELDS = frozenset(
    (
        "text",
        "prompt",
        "completion",
        "messages",
        "instruction",
        "input",
        "output",
        "conversations",
        "instances",
    )
) | {"system"}
