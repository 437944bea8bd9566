"""Shared parts of the tests of training data: small tokenizers, files from lines, and opened data."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.load import load_text_folder, load_text_gguf
from pophood.text.tokenizer import Tokenizer
from pophood.train.data import Data, DataOptions, open_data
from tests.conftest import ROOT
from tests.text.templates import TEMPLATES
from tests.text.vocabularies import library_tokenizer, pieces_metadata

TASKS = ROOT / "tests" / "data" / "seed_tasks" / "seed-tasks.jsonl"
SHAKESPEARE = ROOT / "tests" / "data" / "tinyshakespeare" / "first-120000.txt"
BOS, EOS = "<|im_start|>", "<|im_end|>"
TURNS = ChatTemplate(TEMPLATES["turns"], BOS, EOS)


@functools.cache
def byte_level(end: str = EOS) -> Tokenizer:
    """A byte-level vocabulary of 1,500 tokens with the special tokens of ChatML."""
    with tempfile.TemporaryDirectory() as folder:
        library_tokenizer("qwen2").save(str(Path(folder) / "tokenizer.json"))
        settings = {"eos_token": end, "bos_token": BOS}
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return load_text_folder(folder).tokenizer


@functools.cache
def gpt2() -> Tokenizer:
    """GPT-2's own vocabulary, which has no chat template."""
    return load_text_folder(ROOT / "tests" / "data" / "gpt2").tokenizer


@functools.cache
def sentence_pieces() -> Tokenizer:
    """A vocabulary with a start token that inserts a space before every text."""
    return load_text_gguf(pieces_metadata()).tokenizer


def write_lines(path: Path, records: list[Any]) -> Path:
    """Write a JSONL file; bytes are written as they are."""
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def opened(
    path: Path, *, tokenizer: Tokenizer | None = None, template: ChatTemplate | None = TURNS, **options: Any
) -> Data:
    """Call `open_data` with the small tokenizer and a cache beside the file."""
    cache = options.pop("cache", path.parent / "kept")
    return open_data(path, tokenizer or byte_level(), template, DataOptions(cache=cache, **options))


def learned_text(data: Data, number: int = 0, tokenizer: Tokenizer | None = None) -> str:
    """Return the learned text of a training example, with special tokens spelled out."""
    example = data.train[number]
    return (tokenizer or byte_level()).decode(example.ids[example.trained].tolist(), special=True)


def whole_text(data: Data, number: int = 0, tokenizer: Tokenizer | None = None) -> str:
    """Return the whole text of a training example, with special tokens spelled out."""
    return (tokenizer or byte_level()).decode(data.train[number].ids.tolist(), special=True)
