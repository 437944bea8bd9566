"""Writes the tokenizer of an exported folder: copied from a folder, or derived from a GGUF file's vocabulary.

The derived tokenizer.json follows GGUF's keys: words are split as llama.cpp splits them, so that ids stay the
same (except for the long s, U+017F: GGUF's readers do not take "'ſ" for a contraction). SentencePiece-style
scores become merges in their order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pophood.errors import Unsupported
from pophood.export.hf.hf_config import generation_json
from pophood.export.merged import source_folder, source_metadata
from pophood.model.bundle import Bundle
from pophood.system import atomic_write
from pophood.text.gguf.gguf_vocabulary import (
    BYTE,
    CONTROL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    GgufVocabulary,
    read_vocabulary,
)
from pophood.text.hf.folder import folder_parts
from pophood.text.vocabulary import SPACE_MARK

COPIED = (
    *("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"),
    *("chat_template.jinja", "chat_template.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE"),
)


def write_tokenizer(bundle: Bundle, folder: Path, template: str | None) -> list[str]:
    """Write the tokenizer's files into a folder, with `template` if one is given; return notes."""
    notes = []
    if bundle.file_format == "safetensors":
        _copy(source_folder(bundle), folder)
    else:
        _write_json(folder / "tokenizer.json", tokenizer_json(source_metadata(bundle), bundle))
        _write_json(folder / "tokenizer_config.json", _settings(bundle))
        _write_json(folder / "generation_config.json", generation_json(bundle))
        notes.append("tokenizer.json was written from the GGUF file's vocabulary")
        if template is None and bundle.chat_template is not None:
            template = bundle.chat_template.source
    if template is not None:
        atomic_write(folder / "chat_template.jinja", template.encode())
    return notes


def _copy(source: Path, folder: Path) -> None:
    for name in COPIED:
        if (source / name).is_file():
            atomic_write(folder / name, (source / name).read_bytes())
    if not (source / "tokenizer.json").is_file() and not (source / "vocab.json").is_file():
        parts = folder_parts(source)  # OpenAI's encoder.json and vocab.bpe, which transformers does not read
        _write_json(folder / "vocab.json", parts.vocab)
        lines = ["#version: 0.2", *(" ".join(pair) for pair in parts.merges)]
        atomic_write(folder / "merges.txt", ("\n".join(lines) + "\n").encode())


def _write_json(path: Path, value: object) -> None:
    atomic_write(path, json.dumps(value, ensure_ascii=False, indent=2).encode())


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": bundle.config.named_positions,
        "clean_up_tokenization_spaces": False,
        **bundle.tokenizer.names,
    }


def tokenizer_json(metadata: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return tokenizer.json for a GGUF file's vocabulary; its keys were checked when `bundle` was opened."""
    words = read_vocabulary(metadata)
    tokens, types = words.tokens, words.types
    if words.kind == "gpt2":
        stages = _byte_stages(words)
    else:
        stages = _score_stages(words, bool(metadata.get("tokenizer.ggml.add_space_prefix", True)))
    specials = bundle.tokenizer.specials
    added = [
        {
            "id": id_,
            "content": token,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            "special": id_ in specials,
        }
        for id_, token in enumerate(tokens)
        if id_ in specials or types[id_] in (CONTROL, UNKNOWN, USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **stages,
        "post_processor": _starts(bundle, tokens),
    }


def _starts(bundle: Bundle, tokens: list[str]) -> dict[str, Any] | None:
    starts = [(tokens[id_], id_) for id_ in bundle.tokenizer.start_ids]
    if not starts:
        return None
    single: list[dict[str, Any]] = [{"SpecialToken": {"id": text, "type_id": 0}} for text, _ in starts]
    single.append({"Sequence": {"id": "A", "type_id": 0}})
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {text: {"id": text, "ids": [id_], "tokens": [text]} for text, id_ in starts},
    }


def _bpe(tokens: list[str], merges: Sequence[tuple[str, str]], **options: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")),
        **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
        **options,
        "vocab": {token: id_ for id_, token in enumerate(tokens)},
        "merges": [list(pair) for pair in merges],
    }


def _byte_stages(words: GgufVocabulary) -> dict[str, Any]:
    """Return the stages of byte-level BPE (GPT-2 and later models)."""
    assert words.cut is not None
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {
        "normalizer": None,
        "pre_tokenizer": words.cut.in_folder,
        "decoder": decoder,
        "model": _bpe(words.tokens, words.merges, ignore_merges=words.cut.ignore_merges),
    }


def _score_stages(words: GgufVocabulary, add_space: bool) -> dict[str, Any]:
    """Return the stages of SentencePiece-style BPE, as transformers writes Llama 2's."""
    tokens, types = words.tokens, words.types
    if not any(kind == BYTE for kind in types):
        raise Unsupported(
            "the vocabulary has scores but no byte tokens, which tokenizer.json cannot express: export it as"
            " GGUF"
        )
    unknown = next((tokens[id_] for id_, kind in enumerate(types) if kind == UNKNOWN), None)
    text = {
        token: id_
        for id_, token in enumerate(tokens)
        if types[id_] not in (CONTROL, UNKNOWN, BYTE, UNUSED, USER_DEFINED)
    }
    merges = merges_of_scores(text, words.scores)
    prepend = [{"type": "Prepend", "prepend": SPACE_MARK}] if add_space else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if add_space else []
    back = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, spaces]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
        },
        "model": _bpe(tokens, merges, unk_token=unknown, fuse_unk=unknown is not None, byte_fallback=True),
    }


def merges_of_scores(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """List every way to join two tokens to a third, best score first: the merges that the scores imply.

    >>> merges_of_scores({"a": 0, "b": 1, "ab": 2, "abb": 3}, [0.0, 0.0, -1.0, -2.0])
    [('a', 'b'), ('ab', 'b')]
    """
    ways = [
        (-scores[id_], id_, token[:cut], token[cut:])
        for token, id_ in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    return [(left, right) for _, _, left, right in sorted(ways)]
