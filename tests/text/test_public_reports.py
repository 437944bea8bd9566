"""Tokenizer faults that were reported for other programs, tried here; each test names the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadInput, Unsupported
from pophood.model.bundle import open_bundle
from pophood.text.chat.chat_template import encode_chat, load_template_gguf
from pophood.text.load import load_text_folder, load_text_gguf
from pophood.text.tokenizer import TextStream
from tests.text.test_authorities import llama2_like
from tests.text.test_tokenizer import start_with
from tests.text.vocabularies import byte_level_metadata, folder_of, library_tokenizer, pairs_metadata
from tests.tiny import tiny_gguf

SPACES_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def changed(folder: Path, reference: Any, **parts: Any) -> Path:
    """Write a folder whose tokenizer.json has some parts replaced."""
    document = json.loads(reference.to_str()) | parts
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "decoder", [SPACES_DECODER, METASPACE, {"type": "Fuse"}], ids=["spm", "meta", "fuse"]
)
@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "gpt-2", "smollm"])
def test_a_byte_level_vocabulary_under_a_sentencepiece_decoder(
    pre: str, decoder: dict[str, Any], tmp_path: Path
) -> None:
    """mlx-lm 1041, mlx-knife 49: tekken saved by a SentencePiece class; answers had Ġ for spaces."""
    reference = library_tokenizer(pre)
    tokenizer = load_text_folder(changed(tmp_path, reference, decoder=decoder)).tokenizer
    text = "Hello there, 1234 — «día» 🙂\n\n  x"
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text


def test_a_decoder_that_undoes_nothing_is_still_refused(tmp_path: Path) -> None:
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    both = changed(tmp_path, library_tokenizer("qwen2"), decoder=SPACES_DECODER, normalizer=spaces)
    with pytest.raises(Unsupported, match="does not undo"):
        load_text_folder(both)
    with pytest.raises(Unsupported, match="does not undo"):
        load_text_folder(changed(tmp_path, llama2_like(), decoder={"type": "ByteLevel"}))


@pytest.mark.parametrize("content", ["ilÖveyou", "special token", "Ġthe", "ÿþ", "  two", "日本", "é"])
@pytest.mark.parametrize("special", [False, True])
def test_added_tokens_of_any_characters_come_back(content: str, special: bool, tmp_path: Path) -> None:
    """tokenizers 1392 and transformers 1133: characters of the byte alphabet, and spaces, in added tokens."""
    from tokenizers import AddedToken

    reference = library_tokenizer("gpt-2")
    reference.add_tokens([AddedToken(content, special=special, normalized=False)])
    tokenizer = load_text_folder(folder_of(tmp_path, reference)).tokenizer
    text = f"a{content}b"
    ids = tokenizer.encode(text, parse_special=True)
    assert ids == reference.encode(text, add_special_tokens=False).ids and len(ids) == 3
    assert tokenizer.decode(ids, special=True) == text
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.flush() == ("ab" if special else text)


@pytest.mark.parametrize("pre", ["gpt-2", "tekken"])
@pytest.mark.parametrize("unit", ["^", "a", "é", " ", "1", "\n"])
def test_a_million_equal_characters(pre: str, unit: str) -> None:
    """tiktoken 15, 195 and 327: encoding took minutes, or ended in a panic that no handler catches."""
    tokenizer = load_text_gguf(byte_level_metadata(pre, cut="qwen2")).tokenizer
    text = unit * 1_000_000
    try:
        ids = tokenizer.encode(text, add_start=False)
    except BadInput as error:
        assert "run of millions of spaces" in str(error)
    else:
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "text", ["🏳️‍🌈 x", "e\u0301x", "'\ufe0f", "👩🏽‍🚀👨‍👩‍👧", "한글 שלום", "\u0915\u094d\u0937"]
)
@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_characters_of_several_tokens_stream_once(text: str, pre: str) -> None:
    """mlx-swift-lm 612, exo 1691, mlx-vlm 1705 and 1771: repeated, broken or dropped parts of characters."""
    tokenizer = load_text_gguf(byte_level_metadata(pre)).tokenizer
    for ids in (tokenizer.encode(text), [*tokenizer.encode("é")[:1], *tokenizer.encode(" x" + text)]):
        stream = TextStream(tokenizer)
        assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids)


def test_without_its_key_a_comma_starts_no_text() -> None:
    """llama.cpp 7898: Qwen2's files name no start token, so "," was put first."""
    metadata = byte_level_metadata("qwen2")
    del metadata["tokenizer.ggml.bos_token_id"]
    tokenizer = load_text_gguf(metadata).tokenizer
    assert tokenizer.start_ids == () and tokenizer.token_text(11) == "," and 11 not in tokenizer.stops


def test_a_start_token_is_never_doubled() -> None:
    """koboldcpp 917 and llama.cpp 7107: two start tokens, from the tokenizer and the template."""
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    metadata = byte_level_metadata("llama-bpe") | {"tokenizer.chat_template": template}
    tokenizer = load_text_gguf(metadata).tokenizer
    chat = load_template_gguf(metadata, tokenizer.names)
    assert chat is not None
    ids = encode_chat(tokenizer, chat, [{"role": "user", "content": "Hi"}])
    assert ids.count(tokenizer.start_ids[0]) == 1 and ids[0] == tokenizer.start_ids[0]


def test_a_start_token_that_no_settings_name(tmp_path: Path) -> None:
    """llama.cpp 24428: tokenizer.json adds a start token that tokenizer_config.json does not name."""
    reference = start_with("<|endoftext|>", library_tokenizer("gpt-2"))
    tokenizer = load_text_folder(
        folder_of(tmp_path, reference, tokenizer_config={"eos_token": "<|im_end|>"})
    ).tokenizer
    assert tokenizer.encode("Hi") == reference.encode("Hi").ids


@pytest.mark.parametrize("merges", ["pairs", "texts"])
def test_merges_in_both_spellings(merges: str, tmp_path: Path) -> None:
    """tokenizers 1297 and many later ones: newer files write merges as pairs, unknown to older releases."""
    reference = library_tokenizer("qwen2")
    model = json.loads(reference.to_str())["model"]
    if merges == "texts":
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
    tokenizer = load_text_folder(changed(tmp_path, reference, model=model)).tokenizer
    assert tokenizer.encode("Hello there") == reference.encode("Hello there").ids


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tokenizer.ggml.pre": None}, "names no pre-tokenizer"),
        ({"tokenizer.ggml.pre": "llama9"}, "unknown pre-tokenizer ('llama9')"),
        ({"tokenizer.ggml.token_type": None}, "which tokens are control tokens"),
    ],
)
def test_an_old_file_is_said_to_be_one(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    """llama.cpp 7476 and koboldcpp 1011: old files split words differently, and no message said so."""
    metadata = {key: value for key, value in pairs_metadata("qwen2").items() if key.startswith("tokenizer.")}
    metadata = {key: value for key, value in (metadata | keys).items() if value is not None}
    size = len(metadata["tokenizer.ggml.tokens"])
    shape: dict[str, Any] = {"n_layer": 1, "n_embd": 32, "head_dim": 8, "n_inner": 32, "n_positions": 32}
    path = tiny_gguf(tmp_path / "old.gguf", "llama", tokenizer=False, keys=metadata, vocab_size=size, **shape)
    assert [words in remark for remark in open_bundle(path).remarks] == [True]
