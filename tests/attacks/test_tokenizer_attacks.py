"""Mutated tokenizers: tokenizer.json and the files beside it, GGUF metadata, vocab.bpe. 1,000 of each.

Every tokenizer that loads is also used: texts are encoded and decoded, ids shown, stops listed. Only typed
errors may be raised, within a second, and with memory like the file's. `POPHOOD_FUZZ=100000` for the record.
"""

from __future__ import annotations

import contextlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadInput
from pophood.text.chat.chat_template import (
    ChatTemplate,
    encode_chat,
    load_template_folder,
    load_template_gguf,
)
from pophood.text.load import load_text_folder, load_text_gguf
from pophood.text.tokenizer import TextStream, Tokenizer
from tests.attacks.mutate import Case, Seed, Watch, fuzz_count, json_mutations, mutations
from tests.text.templates import CONVERSATIONS
from tests.text.texts import FRAGMENTS
from tests.tiny_vocabulary import MERGES, byte_symbols

TEXTS = ("Hello there", "<|im_end|> the\n\n 12345", "".join(FRAGMENTS), "▁x" * 50, "")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [("h", "e"), ("t", "he"), ("Ġ", "the"), ("l", "l"), ("Ġ", "x")]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_vocabulary() -> dict[str, int]:
    tokens = [*byte_symbols(), *("".join(pair) for pair in WORDS)]
    return {token: id_ for id_, token in enumerate(tokens)}


def byte_level_document() -> dict[str, Any]:
    """Return a tokenizer.json like Llama 3's, with every part in it."""
    vocab = byte_vocabulary()
    size = len(vocab)
    llama3 = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    added = [
        {"id": size + place, "content": token, "special": True, "lstrip": False, "rstrip": place == 2}
        | {"single_word": False, "normalized": False}
        for place, token in enumerate(SPECIALS)
    ]
    start = {"SpecialToken": {"id": SPECIALS[0], "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [*added, {"id": size + 3, "content": "<tool>", "special": False}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": llama3}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {SPECIALS[0]: {"id": SPECIALS[0], "ids": [size], "tokens": [SPECIALS[0]]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": dict(list(vocab.items())[:40])
            | {token: vocab[token] for token in list(vocab)[256:]}
            | {"h": vocab["h"], "e": vocab["e"], "t": vocab["t"], "l": vocab["l"], "x": vocab["x"]}
            | {"he": vocab["he"], "Ġ": vocab["Ġ"]},
            "merges": [list(pair) for pair in WORDS[:3]] + [" ".join(pair) for pair in WORDS[3:]],
        },
    }


def spaces_document() -> dict[str, Any]:
    """Return a tokenizer.json like Llama 2's."""
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(40)),
        "▁",
        "h",
        "e",
        "he",
        "▁he",
        *"tlo",
    ]
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": id_, "content": token, "special": True, "normalized": bool(id_)}
            for id_, token in enumerate(tokens[:3])
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [["h", "e"], ["▁", "he"]],
        },
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {
        "add_bos_token": True,
        "bos_token": {"content": "<|im_start|>"},
        "eos_token": "<|im_end|>",
        "added_tokens_decoder": {"264": {"content": "<|endoftext|>", "special": True}},
        "additional_special_tokens": ["<|im_end|>"],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHATML,
    },
    "generation_config.json": {"eos_token_id": [263, 262]},
    "special_tokens_map.json": {"eos_token": "<|im_end|>", "pad_token": {"content": "!"}},
    "config.json": {"eos_token_id": 263},
}


def gguf_metadata(kind: str) -> dict[str, Any]:
    if kind == "gpt2":
        tokens = [
            *list(byte_vocabulary())[:30],
            *"hetlxĠ",
            "he",
            "the",
            "Ġthe",
            "ll",
            "Ġx",
            *SPECIALS,
            "<tool>",
        ]
        tokens = list(dict.fromkeys(tokens))
        merges = [" ".join(pair) for pair in WORDS]
        more: dict[str, Any] = {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": merges}
    else:
        tokens = [
            "<unk>",
            "<s>",
            "</s>",
            *(f"<0x{byte:02X}>" for byte in range(20)),
            "▁",
            *"hetlo",
            "he",
            "▁he",
            *SPECIALS,
        ]
        more = {"tokenizer.ggml.scores": [-0.5 * place for place in range(len(tokens))]}
    types = [
        3 if token in (*SPECIALS, "<s>", "</s>") else 4 if token == "<tool>" else 6 if "<0x" in token else 1
        for token in tokens
    ]
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.eot_token_id": 4,
        "tokenizer.ggml.padding_token_id": 2**32 - 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.chat_template": CHATML,
        **more,
    }


def use(tokenizer: Tokenizer) -> None:
    """Use an accepted tokenizer; its vocabulary may still be unable to write some texts."""
    for text in TEXTS:
        for parse_special in (False, True):
            try:
                ids = tokenizer.encode(text, parse_special=parse_special)
            except BadInput:
                continue
            stream = TextStream(tokenizer)
            assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids)
            tokenizer.decode(ids, special=True)
    for id_ in range(0, min(tokenizer.vocab_size, 400), 5):
        tokenizer.token_bytes(id_)
        tokenizer.id_of(tokenizer.token_text(id_))
    repr(tokenizer.stops)


def use_template(tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
    with contextlib.suppress(BadInput):
        if template is not None:
            encode_chat(tokenizer, template, CONVERSATIONS["three"])


def load_and_use_folder(folder: Path) -> None:
    tokenizer = load_text_folder(folder).tokenizer
    use(tokenizer)
    use_template(tokenizer, load_template_folder(folder, tokenizer.names))


def load_and_use_gguf(data: bytes) -> None:
    try:
        metadata = json.loads(data)
    except (ValueError, RecursionError):
        return  # a GGUF reader returns values, never broken text
    if not isinstance(metadata, dict):
        return
    tokenizer = load_text_gguf(metadata).tokenizer
    use(tokenizer)
    use_template(tokenizer, load_template_gguf(metadata, tokenizer.names))


def fresh(path: Path, data: bytes) -> None:
    """Write a new file instead of emptying the old one, which some file systems sync at once (2 ms)."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def watch() -> Watch:
    """Return a watch with slack for the library's memory, which Python does not count."""
    return Watch(factor=64, slack=4 << 20)


@pytest.fixture(autouse=True, scope="module")
def quiet_panics() -> Any:
    """Silence stderr, to which the library writes each of its panics."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    yield
    os.dup2(saved, 2)
    os.close(saved)
    os.close(nowhere)


@pytest.mark.timeout(1_800)
def test_mutated_tokenizer_json(tmp_path: Path, record_property: Any) -> None:
    guard = watch()
    for document in (byte_level_document(), spaces_document()):
        (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        load_and_use_folder(tmp_path)
    for case in json_mutations(
        [byte_level_document(), spaces_document()], fuzz_count(), run="tokenizer.json"
    ):
        fresh(tmp_path / "tokenizer.json", case.data)
        guard.attempt(case, partial(load_and_use_folder, tmp_path))
    assert guard.accepted > fuzz_count() // 20 and guard.refused.total() > fuzz_count() // 5
    record_property("fuzz", guard.summary("tokenizer.json"))
    print(guard.summary("tokenizer.json"))


@pytest.mark.timeout(1_800)
def test_mutated_settings(tmp_path: Path, record_property: Any) -> None:
    """The small JSON files beside the vocabulary are mutated one at a time."""
    guard = watch()
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level_document()), encoding="utf-8")
    names = list(SETTINGS)
    for name, content in SETTINGS.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    load_and_use_folder(tmp_path)
    count = fuzz_count() // 10  # a tokenizer is built and a template compiled in most of them
    cases = json_mutations(list(SETTINGS.values()), count, run="settings")
    for index, case in enumerate(cases):
        name = names[index % len(names)]
        fresh(tmp_path / name, case.data)
        guard.attempt(case, partial(load_and_use_folder, tmp_path))
        fresh(tmp_path / name, json.dumps(SETTINGS[name]).encode())
    assert guard.accepted > count // 20 and guard.refused.total() > count // 20
    record_property("fuzz", guard.summary("settings"))
    print(guard.summary("settings"))


@pytest.mark.timeout(1_800)
def test_mutated_added_tokens(tmp_path: Path, record_property: Any) -> None:
    """These files count if tokenizer_config.json lists no added tokens."""
    guard = watch()
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level_document()), encoding="utf-8")
    files: dict[str, dict[str, Any]] = {
        "added_tokens.json": {"<q>": 265, "<|im_end|>": 263, "<|last|>": 266},
        "special_tokens_map.json": {
            "eos_token": {"content": "<|last|>", "lstrip": True, "rstrip": False, "single_word": False},
            "pad_token": "[PAD]",
            "additional_special_tokens": ["<q>", {"content": "<r>", "normalized": True}],
        },
        "config.json": {"vocab_size": 300, "model_type": "llama"},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    load_and_use_folder(tmp_path)
    names, count = list(files), fuzz_count() // 10
    for index, case in enumerate(json_mutations(list(files.values()), count, run="added tokens")):
        name = names[index % len(names)]
        fresh(tmp_path / name, case.data)
        guard.attempt(case, partial(load_and_use_folder, tmp_path))
        fresh(tmp_path / name, json.dumps(files[name]).encode())
    assert guard.accepted > count // 20 and guard.refused.total() > count // 20
    record_property("fuzz", guard.summary("added tokens"))
    print(guard.summary("added tokens"))


@pytest.mark.timeout(1_800)
def test_mutated_gguf_metadata(record_property: Any) -> None:
    guard = watch()
    seeds = [gguf_metadata("gpt2"), gguf_metadata("llama")]
    for seed in seeds:
        load_and_use_gguf(json.dumps(seed).encode())
    for case in json_mutations(seeds, fuzz_count(), run="gguf tokenizer"):
        guard.attempt(case, partial(load_and_use_gguf, case.data))
    assert guard.accepted > fuzz_count() // 20 and guard.refused.total() > fuzz_count() // 5
    record_property("fuzz", guard.summary("gguf tokenizer"))
    print(guard.summary("gguf tokenizer"))


@pytest.mark.timeout(1_800)
def test_mutated_vocab_bpe(tmp_path: Path, record_property: Any) -> None:
    guard = watch()
    lines = MERGES.read_bytes().splitlines()[:60]
    seed = Seed("vocab.bpe", b"\n".join(lines) + b"\n")
    (tmp_path / "vocab.bpe").write_bytes(seed.data)
    load_and_use_folder(tmp_path)
    for case in mutations([seed], fuzz_count(), run="vocab.bpe"):
        fresh(tmp_path / "vocab.bpe", case.data)
        guard.attempt(case, partial(load_and_use_folder, tmp_path))
    assert guard.accepted > fuzz_count() // 20 and guard.refused.total() > fuzz_count() // 5
    record_property("fuzz", guard.summary("vocab.bpe"))
    print(guard.summary("vocab.bpe"))


def test_the_watch_would_see_an_untyped_error() -> None:
    empty: dict[str, object] = {}
    with pytest.raises(AssertionError, match="KeyError"):
        watch().attempt(Case("x", b""), lambda: empty["no such key"])
