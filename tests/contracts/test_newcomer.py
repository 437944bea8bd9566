"""Twenty questions of a newcomer: grep for the word of the field finds the place, among few other lines."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.conftest import ROOT

MOST_LINES = 20  # that one reads to find the place
PLACES = {  # pattern of grep -E, the place that answers
    "attention in training": ("class Attention.*", "src/pophood/train/model/attention.py"),
    "attention in the engine": ("void (Engine::)?attend", "native/engine/attention.cpp"),
    "RoPE in training": ("def .*rope.*|class .*rope.*", "src/pophood/train/model/ops.py"),
    "RoPE in the engine": ("void rope", "native/kernels/simd.inl"),
    "the int8 layer": ("class Int8Linear", "src/pophood/train/model/int8_linear.py"),
    "the batch sampler": ("batch sampler", "src/pophood/train/data/dataset/packing.py"),
    "DDP": ("DDP", "src/pophood/train/distributed/sharding.py"),
    "saving a checkpoint": ("def save", "src/pophood/train/checkpoint/save_load.py"),
    "the chat template": ("class ChatTemplate", "src/pophood/text/chat/chat_template.py"),
    "a sampler (top-p)": ("def top_p", "src/pophood/sampling/filters.py"),
    "the reader of GGUF": ("def open_gguf(_file)?", "src/pophood/formats/gguf.py"),
    "the reader of adapters": ("def read_adapter", "src/pophood/adapters/peft.py"),
    "a command (export)": ("pophood export", "src/pophood/cli/commands/export.py"),
    "a view (lens)": ("class Lens.*", "src/pophood/look/views/lens.py"),
    "the loss mask": ("loss mask", "src/pophood/train/data/encode/encode.py"),
    "the plan of a run": ("class Plan", "src/pophood/train/run/plan.py"),
    "the report of a run": ("report card", "src/pophood/train/report/report_card.py"),
    "the KV cache": ("class KvCache", "native/engine/kv_cache.h"),
    "packing": ("packed rows?", "src/pophood/train/data/dataset/packing.py"),
    "dispatch": ("dispatch", "native/platform/dispatch.cpp"),
    "the HTML template": ("<!doctype html>", "src/pophood/web/base.html"),
    "the proof of an export": ("class .*Proof.*|def prove.*", "src/pophood/export/proof.py"),
}


@cache
def sources() -> dict[str, list[str]]:
    """Lines of every source file, by its path from the root."""
    files = [path for folder in ("src", "native") for path in sorted((ROOT / folder).rglob("*"))]
    kinds = {".py", ".cpp", ".h", ".inl", ".html"}
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8").splitlines()
        for path in files
        if path.suffix in kinds
    }


@pytest.mark.parametrize("question", PLACES)
def test_the_fields_word_finds_the_place(question: str) -> None:
    word, place = PLACES[question]
    whole = re.compile(rf"(?<!\w)(?:{word})(?!\w)", re.IGNORECASE)  # as grep -w
    lines = [name for name, text in sources().items() for line in text if whole.search(line)]
    assert place in lines, f"{word!r} finds {sorted(set(lines))}"
    assert len(lines) <= MOST_LINES, f"{word!r} finds {len(lines)} lines"
