"""Keys `tokenizer.ggml.*` that a file omits or fills oddly: llama.cpp's ids, and a note if quality suffers.

The vocabularies are those of `vocabularies.py`; every change is one key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pophood.text.gguf.gguf_vocabulary import NO_SCORES, NO_START, NO_TYPES
from pophood.text.load import load_text_gguf
from tests.text.texts import NEWER_THAN_LLAMA_CPP, strings
from tests.text.vocabularies import LlamaCpp, byte_level_metadata, pieces_metadata, write_gguf

Metadata = dict[str, Any]
PREFIX = "tokenizer.ggml."
NONE = 2**32 - 1  # how converters write "no such token"


def without(metadata: Metadata, *keys: str) -> Metadata:
    return {key: value for key, value in metadata.items() if key.removeprefix(PREFIX) not in keys}


def with_keys(metadata: Metadata, **keys: Any) -> Metadata:
    return metadata | {PREFIX + key: value for key, value in keys.items()}


def types(metadata: Metadata, change: dict[int, int]) -> Metadata:
    """Return metadata with some token types replaced."""
    old = metadata[PREFIX + "token_type"]
    return with_keys(metadata, token_type=[change.get(kind, kind) for kind in old])


def type_of(metadata: Metadata, token: str, kind: int) -> Metadata:
    """Return metadata with one token's type replaced."""
    tokens, old = metadata[PREFIX + "tokens"], metadata[PREFIX + "token_type"]
    new = [kind if name == token else was for name, was in zip(tokens, old, strict=True)]
    return with_keys(metadata, token_type=new)


def bpe() -> Metadata:
    return byte_level_metadata("qwen2")


def spm() -> Metadata:
    return pieces_metadata()


ALIKE: dict[str, Metadata] = {
    "bpe without types": without(bpe(), "token_type"),
    "bpe with types of no meaning": types(bpe(), {1: 0, 4: 17}),
    "bpe with more types than tokens": with_keys(bpe(), token_type=[*bpe()[PREFIX + "token_type"], 1, 1]),
    "bpe with merges listed twice": with_keys(bpe(), merges=[*bpe()[PREFIX + "merges"]] * 2),
    "bpe without ends": without(bpe(), "eos_token_id", "bos_token_id"),
    "bpe with ends out of range": with_keys(bpe(), eos_token_id=NONE, unknown_token_id=NONE),
    "bpe with scores": with_keys(bpe(), scores=[0.0] * len(bpe()[PREFIX + "tokens"])),
    "bpe with a space before texts": with_keys(bpe(), add_space_prefix=True),
    "bpe with an end token after texts": with_keys(bpe(), add_eos_token=False),
    "bpe with an end as text": type_of(bpe(), "<|im_end|>", 1),
    "bpe with an end as user-defined": type_of(bpe(), "<|im_end|>", 4),
    "bpe with a separator": with_keys(bpe(), seperator_token_id=3, mask_token_id=4, padding_token_id=5),
    "spm without types": without(spm(), "token_type"),
    "spm without scores": without(spm(), "scores"),
    "spm with whole scores": with_keys(spm(), scores=[int(score) for score in spm()[PREFIX + "scores"]]),
    "spm with more scores than tokens": with_keys(spm(), scores=[*spm()[PREFIX + "scores"], 1.0]),
    "spm with bytes as text": types(spm(), {6: 1}),
    "spm with bytes of no type": types(spm(), {6: 1, 1: 0}),
    "spm without ids": without(spm(), "bos_token_id", "eos_token_id"),
    "spm with ids out of range": with_keys(spm(), bos_token_id=NONE, eos_token_id=10**7),
    "spm with an end as text": type_of(spm(), "<|im_end|>", 1),
    "spm with a name for its cut": with_keys(spm(), pre="llama-bpe"),
    "spm that drops white space": with_keys(spm(), remove_extra_whitespaces=True),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_ids_are_llama_cpps(kind: str, tmp_path: Path) -> None:
    metadata = ALIKE[kind]
    ours, reference = load_text_gguf(metadata).tokenizer, LlamaCpp(write_gguf(tmp_path / "v.gguf", metadata))
    try:
        for text in strings(400, 40, NEWER_THAN_LLAMA_CPP):
            assert ours.encode(text, add_start=False) == reference.encode(text), text
        start = reference.encode("Hi", add_start=True)
        assert ours.encode("Hi") == start
        assert ours.decode(ours.encode("Héllo 🙂")) == "Héllo 🙂"
    finally:
        reference.close()


@pytest.mark.parametrize(
    ("metadata", "notes"),
    [
        (bpe(), ()),
        (spm(), ()),
        (ALIKE["bpe without types"], (NO_TYPES,)),
        (ALIKE["spm without types"], (NO_TYPES,)),
        (ALIKE["spm without scores"], (NO_SCORES,)),
        (without(spm(), "scores", "token_type"), (NO_SCORES, NO_TYPES)),
        (with_keys(without(bpe(), "bos_token_id"), add_bos_token=True), (NO_START,)),
        (without(byte_level_metadata("llama-bpe"), "bos_token_id"), (NO_START,)),
        (with_keys(byte_level_metadata("llama-bpe"), bos_token_id=NONE), (NO_START,)),
        (with_keys(without(byte_level_metadata("llama-bpe"), "bos_token_id"), add_bos_token=False), ()),
    ],
)
def test_what_a_file_leaves_out_is_said(metadata: Metadata, notes: tuple[str, ...]) -> None:
    tokenizer = load_text_gguf(metadata).tokenizer
    assert tokenizer.notes == notes
    assert all(note.isprintable() and len(note) < 300 for note in notes)
    if NO_START in notes:
        assert tokenizer.start_ids == ()


@pytest.mark.parametrize("metadata", [ALIKE["bpe without types"], ALIKE["spm without types"]])
def test_without_types_what_is_written_like_a_control_token_is_one(metadata: Metadata) -> None:
    tokenizer = load_text_gguf(metadata).tokenizer
    named = set(tokenizer.specials.values())
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= named
    assert named <= {
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<unk>",
        "<s>",
        "</s>",
        "<tool_call>",
        "<tool>",
    }
    parsed = tokenizer.encode("<|im_start|>Hi<|im_end|>", parse_special=True, add_start=False)
    assert parsed[0] == tokenizer.id_of("<|im_start|>") and parsed[-1] in tokenizer.stops


@pytest.mark.parametrize("kind", ["bpe with an end as text", "bpe with an end as user-defined"])
def test_an_end_is_a_control_token_whatever_its_type(kind: str, tmp_path: Path) -> None:
    """Converters of 2023 typed added tokens as text or user-defined, so generation ran past their end."""
    metadata = without(ALIKE[kind], "eos_token_id")
    tokenizer, reference = (
        load_text_gguf(metadata).tokenizer,
        LlamaCpp(write_gguf(tmp_path / "v.gguf", metadata)),
    )
    end = tokenizer.id_of("<|im_end|>")
    assert end is not None and end in tokenizer.specials and end in tokenizer.stops
    for text in ("a<|im_end|>b", "<|im_end|>"):
        assert tokenizer.encode(text, parse_special=True) == reference.encode(text, parse_special=True)
        assert tokenizer.encode(text) == reference.encode(text)
        assert end not in tokenizer.encode(text)
    reference.close()


def test_a_byte_typed_as_text_is_no_text() -> None:
    tokenizer = load_text_gguf(ALIKE["spm with bytes as text"]).tokenizer
    tab = tokenizer.id_of("<0x09>") or tokenizer.id_of("\t")
    assert tab is not None and tokenizer.token_bytes(tab) == b"\t"
    assert tokenizer.decode(tokenizer.encode("<0x41>")) == "<0x41>"
