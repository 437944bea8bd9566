"""Faults and unknown parts in a tokenizer's files are refused by name, on one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, NotFound, PophoodError, Unsupported
from pophood.text.load import load_text_folder, load_text_gguf
from tests.text.vocabularies import byte_level_metadata, library_tokenizer, pieces_metadata
from tests.tiny_vocabulary import MERGES


def changed(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(library_tokenizer("qwen2").to_str())
    for place, value in changes.items():
        *path, last = place.split("__")
        inner = document
        for key in path:
            inner = inner[key]
        inner[last] = value
    return document


HOSTILE = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
REFUSED: dict[str, tuple[dict[str, Any], type[PophoodError], str]] = {
    "unigram": (changed(model__type="Unigram"), Unsupported, "'Unigram'"),
    "wordpiece": (changed(model__type="WordPiece"), Unsupported, "'WordPiece'"),
    "dropout": (changed(model__dropout=0.1), Unsupported, "dropout"),
    "model key": (changed(model__surprise=1), Unsupported, "'surprise'"),
    "part": (changed(surprise=1), Unsupported, "'surprise'"),
    "suffix": (changed(model__end_of_word_suffix="</w>"), Unsupported, "prefix or suffix"),
    "pattern": (changed(pre_tokenizer=HOSTILE), Unsupported, r"\(a\+\)\+\$"),
    "stage": (changed(pre_tokenizer={"type": "BertPreTokenizer"}), Unsupported, "'BertPreTokenizer'"),
    "stage key": (changed(normalizer={"type": "NFC", "x": 1}), Unsupported, "'x'"),
    "normalizer": (changed(normalizer={"type": "Precompiled"}), Unsupported, "'Precompiled'"),
    "long text": (changed(normalizer={"type": "Prepend", "prepend": "a" * 99}), Unsupported, "Prepend"),
    "empty pattern": (
        changed(normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
        BadFile,
        "no text to look for",
    ),
    "decoder": (changed(decoder={"type": "WordPiece"}), Unsupported, "'WordPiece'"),
    "no decoder": (changed(decoder=None), Unsupported, "null"),
    "mixed": (changed(pre_tokenizer=None), Unsupported, "does not undo"),
    "post-processor": (changed(post_processor={"type": "RobertaProcessing"}), Unsupported, "'Roberta"),
    "merge": (changed(model__merges=["a b c"]), BadFile, "merge 1 is 'a b c'"),
    "unknown merge": (changed(model__merges=[["qx", "zz"]]), BadFile, "do not fit"),
    "vocab": (changed(model__vocab={"a": "0"}), BadFile, "not an object"),
    "empty vocab": (changed(model__vocab={}, model__merges=[], added_tokens=[]), BadFile, "empty"),
    "far id": (changed(model__vocab={"a": 2**31}), BadFile, "2147483648"),
    "negative id": (changed(model__vocab={"a": -1}), BadFile, "-1"),
    "one id twice": (
        changed(model__vocab={"a": 0, "b": 0}, model__merges=[]),
        BadFile,
        "'a' and 'b' have id 0",
    ),
    "added twice": (changed(added_tokens=[{"id": 1_507, "content": "zz9"}] * 2), BadFile, "listed twice"),
    "added id": (changed(added_tokens=[{"id": 1, "content": "a"}]), BadFile, "'a' has id 1"),
    "flag": (changed(added_tokens=[{"id": 1_507, "content": "x", "special": 1}]), BadFile, "special"),
    "unk": (changed(model__unk_token="nowhere"), BadFile, "'nowhere'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_understood_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    document, error, words = REFUSED[kind]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(error, match=words) as caught:
        load_text_folder(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_other_gguf_tokenizers_are_refused_by_name() -> None:
    base = byte_level_metadata("qwen2")
    for kind in ("bert", "t5", "rwkv", "plamo2", "no_vocab"):
        with pytest.raises(Unsupported, match=kind):
            load_text_gguf(base | {"tokenizer.ggml.model": kind})
    for pre in ("kimi-k2", "superbpe", "tiny_aya"):
        with pytest.raises(Unsupported, match=f"'{pre}'.*known: gpt-2, smollm"):
            load_text_gguf(base | {"tokenizer.ggml.pre": pre})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokens", ["a", "a"], "'a' twice"),
        ("tokens", [], "empty"),
        ("tokens", [1], "list of texts"),
        ("token_type", [1], "1 entries for"),
        ("tokens", None, "no tokenizer.ggml.tokens: take another conversion"),
        ("merges", None, "no tokenizer.ggml.merges: take another conversion"),
        ("merges", ["a"], "'a'"),
        ("merges", ["a  b"], "'a  b'"),
        ("merges", ["a b c", "d"], "'a b c'"),
        ("bos_token_id", "1", "not an id"),
        ("add_bos_token", 1, "not true or false"),
    ],
)
def test_broken_gguf_vocabularies_are_refused_by_name(key: str, value: Any, words: str) -> None:
    metadata = byte_level_metadata("qwen2")
    if value is None:
        del metadata[f"tokenizer.ggml.{key}"]
    else:
        metadata[f"tokenizer.ggml.{key}"] = value
    with pytest.raises(BadFile, match=words):
        load_text_gguf(metadata)


def test_scores_must_be_finite() -> None:
    scores = pieces_metadata()["tokenizer.ggml.scores"]
    with pytest.raises(BadFile, match="finite"):
        load_text_gguf(pieces_metadata(**{"tokenizer.ggml.scores": [float("nan"), *scores[1:]]}))


def test_folders_without_a_tokenizer_say_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"wanted tokenizer\.json"):
        load_text_folder(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x05")
    with pytest.raises(Unsupported, match=r"take tokenizer\.json"):
        load_text_folder(tmp_path)
    shutil.copy(MERGES, tmp_path / "merges.txt")
    (tmp_path / "vocab.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "CodeGenTokenizer"}', encoding="utf-8"
    )
    with pytest.raises(Unsupported, match="CodeGenTokenizer"):
        load_text_folder(tmp_path)


def test_a_tokenizer_of_200_mb_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(200 << 20)
    with pytest.raises(BadFile, match="209,715,200 bytes"):
        load_text_folder(tmp_path)
