"""The options for reading training data: a frozen record, checked when it is created."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pophood.errors import BadInput
from pophood.settings import about, setting

Format = Literal["auto", "text", "lines", "prompt", "messages", "alpaca", "sharegpt", "tasks"]

LAYOUTS: dict[str, str] = {
    "text": "one document per text file, or per record with `text`",
    "lines": "a text file whose every line is a document",
    "prompt": "records with `prompt` and `completion`",
    "messages": "records with `messages`: a list of {role, content}, optionally with `weight`",
    "alpaca": "records with `instruction`, `output` and optionally `input`",
    "sharegpt": "records with `conversations`: a list of {from, value}",
    "tasks": "records with `instruction` and `instances`: a list of {input, output} (self-instruct)",
}


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Options for turning files into examples.

    Only `format`, `columns`, `completions_only`, `joined` and `special` change the token ids; for other
    values of the rest the files are not read again.
    """

    format: Format = setting("auto", "Layout of the records")
    columns: Mapping[str, str] = field(
        default_factory=dict,
        metadata=about(
            'Names of fields, as in "prompt=question,completion=answer"', metavar="OURS=THEIRS,..."
        ),
    )
    completions_only: bool | None = setting(
        None,
        "Compute the loss on the answers only (default for prompts and chats), or on all text",
        flag="completions-only/everything",
    )
    validation: float = setting(0.1, "Share of the tokens for validation")  # 1 or more: documents
    validation_paths: tuple[Path, ...] = setting(
        (), "Validate with these files instead", flag="validation-data", metavar="FILE"
    )
    strict: bool = setting(False, "Stop at the first bad line")
    joined: bool = False  # prompt and completion are joined as they are, without a template
    special: bool = False  # special tokens that plain text spells out become these tokens
    length: int = 1024  # positions per row: longer documents are cut or split
    long: Literal["auto", "cut", "split"] = "auto"  # auto: text is split, prompts and chats are cut
    seed: int | None = None  # of the split; None: the run's, or 42 if there is no run
    cache: Path | None = None  # the folder for token ids; None: `data` in pophood's home

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


# The fields of records, which `columns` may rename.
FIELDS = {"text", "system", "prompt", "completion", "messages", "conversations"}
FIELDS |= {"instruction", "instances", "input", "output"}
