"""Tokenizer: text survives a round trip, without special tokens; start and stop tokens follow the files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadInput
from pophood.text.load import load_text_folder, load_text_gguf
from pophood.text.tokenizer import Tokenizer
from tests import processes
from tests.text.test_authorities import llama2_like
from tests.text.texts import strings
from tests.text.vocabularies import (
    byte_level_metadata,
    folder_of,
    library_tokenizer,
    pieces_metadata,
    trained,
)
from tests.tiny_vocabulary import MERGES


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("gpt2")
    shutil.copy(MERGES, folder / "vocab.bpe")
    return load_text_folder(folder).tokenizer


# Text and back -----------------------------------------------------------------------------------------

BUILDERS: dict[str, Callable[[Path], Tokenizer]] = {
    "qwen2 json": lambda path: load_text_folder(folder_of(path, library_tokenizer("qwen2"))).tokenizer,
    "llama-2 json": lambda path: load_text_folder(folder_of(path, llama2_like())).tokenizer,
    "gpt-2 gguf": lambda path: load_text_gguf(byte_level_metadata("gpt-2")).tokenizer,
    "llama gguf": lambda path: load_text_gguf(pieces_metadata()).tokenizer,
    "llama gguf without space": lambda path: (
        load_text_gguf(pieces_metadata(**{"tokenizer.ggml.add_space_prefix": False})).tokenizer
    ),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_text_comes_back(kind: str, tmp_path: Path) -> None:
    tokenizer = BUILDERS[kind](tmp_path)
    for text in strings(2_000, seed=20):
        ids = tokenizer.encode(text)
        expected = text.replace("\u2581", " ") if "llama" in kind else text  # which stands for a space there
        assert tokenizer.decode(ids) == expected
        assert b"".join(map(tokenizer.token_bytes, ids[len(tokenizer.start_ids) :])).endswith(
            expected.encode()
        )
        assert not tokenizer.specials.keys() & set(ids[len(tokenizer.start_ids) :])


def test_no_file_can_ask_for_a_clean_up_of_spaces(tmp_path: Path) -> None:
    asked = {"clean_up_tokenization_spaces": True}
    tokenizer = load_text_folder(
        folder_of(tmp_path, library_tokenizer("gpt-2"), tokenizer_config=asked)
    ).tokenizer
    text = "Hello , world . I do n't know ' s  ?"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_typed_as_text_and_hidden_in_text(gpt2: Tokenizer) -> None:
    text = "one<|endoftext|> two"
    plain, parsed = gpt2.encode(text), gpt2.encode(text, parse_special=True)
    assert 50_256 not in plain and parsed.count(50_256) == 1
    assert gpt2.decode(plain) == text
    assert gpt2.decode(parsed) == "one two" and gpt2.decode(parsed, special=True) == text


def test_older_spellings_of_tokenizer_json_are_read(tmp_path: Path) -> None:
    """GPT-2's own file names no model type, and writes missing settings as empty texts."""
    reference = library_tokenizer("gpt-2")
    document = json.loads(reference.to_str())
    for key in ("type", "byte_fallback", "ignore_merges"):
        del document["model"][key]
    document["model"] |= {"unk_token": "", "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    tokenizer = load_text_folder(tmp_path).tokenizer
    assert tokenizer.encode("Hello there") == reference.encode("Hello there").ids


def test_added_tokens_that_are_not_special_are_shown_and_always_parsed(tmp_path: Path) -> None:
    tokenizer = load_text_folder(folder_of(tmp_path, library_tokenizer("qwen2"))).tokenizer
    ids = tokenizer.encode("a<tool_call>b")
    assert len(ids) == 3 and tokenizer.decode(ids) == "a<tool_call>b"
    assert tokenizer.id_of("<tool_call>") == ids[1] and ids[1] not in tokenizer.specials


def test_a_token_that_text_can_make_is_never_hidden(tmp_path: Path) -> None:
    """Some fine-tuned models pad with "!"; hiding it would remove it from every answer."""
    named = {"pad_token": "!", "eos_token": "<|im_end|>"}
    tokenizer = load_text_folder(
        folder_of(tmp_path, library_tokenizer("gpt-2"), special_tokens_map=named)
    ).tokenizer
    assert tokenizer.decode(tokenizer.encode("Hi!")) == "Hi!"
    assert "!" not in tokenizer.specials.values() and "<|im_end|>" in tokenizer.specials.values()


def test_a_special_token_that_plain_text_would_become_is_an_error(tmp_path: Path) -> None:
    from tokenizers import AddedToken

    reference = library_tokenizer("gpt-2")
    merged = "".join(trained("gpt-2").merges[0].split(" "))
    reference.add_tokens([AddedToken(merged, special=True, normalized=False)])
    tokenizer = load_text_folder(folder_of(tmp_path, reference)).tokenizer
    text = merged.replace("Ġ", " ")
    with pytest.raises(BadInput, match="would turn ordinary text into its special token"):
        tokenizer.encode(text)


def test_half_a_character_is_refused_with_its_place(gpt2: Tokenizer) -> None:
    with pytest.raises(BadInput, match=r"U\+D83D\) at character 3"):
        gpt2.encode("abc\ud83d")


def test_invalid_utf8_is_one_error_with_its_offset(gpt2: Tokenizer) -> None:
    with pytest.raises(BadInput, match=r"byte 0xFF at offset 5 \(invalid start byte\)"):
        gpt2.encode_bytes(b"h\xc3\xa9llo"[:5] + b"\xff\xfe")
    with pytest.raises(BadInput, match="offset 1,000,000"):
        gpt2.encode_bytes(b"x" * 1_000_000 + b"\xc3")


def test_invalid_utf8_is_replaced_and_counted(gpt2: Tokenizer) -> None:
    own = "\ufffd".encode()
    ids, replaced = gpt2.encode_bytes(b"a\xff" + own + b"b\xe2\x82c\xf0\x9f\x98", replace_invalid=True)
    assert gpt2.decode(ids) == "a\ufffd\ufffdb\ufffdc\ufffd" and replaced == 3
    assert gpt2.encode_bytes("día".encode(), replace_invalid=True) == (gpt2.encode("día"), 0)


# Single tokens -----------------------------------------------------------------------------------------


def test_every_token_of_gpt2_has_a_text_that_finds_it(gpt2: Tokenizer) -> None:
    assert gpt2.vocab_size == 50_257
    for id_ in range(gpt2.vocab_size):
        assert gpt2.id_of(gpt2.token_text(id_)) == id_


@pytest.mark.parametrize("metadata", [byte_level_metadata, lambda _: pieces_metadata()])
def test_every_token_of_a_gguf_vocabulary_too(metadata: Callable[[str], dict[str, Any]]) -> None:
    tokenizer = load_text_gguf(metadata("qwen2")).tokenizer
    for id_ in range(tokenizer.vocab_size):
        found = tokenizer.id_of(tokenizer.token_text(id_))
        assert found is not None and tokenizer.token_bytes(found) == tokenizer.token_bytes(id_)


def test_tokens_are_shown_as_they_are(gpt2: Tokenizer) -> None:
    assert gpt2.token_text(14_708) == " Madrid" and gpt2.token_bytes(14_708) == b" Madrid"
    emoji = gpt2.encode("😀")
    assert [gpt2.token_text(id_) for id_ in emoji] == [r"\xF0\x9F\x98", r"\x80"]
    assert gpt2.token_text(50_256) == "<|endoftext|>"
    assert gpt2.id_of("no such token") is None


def test_ids_beyond_the_vocabulary_are_empty_and_negative_ones_refused(gpt2: Tokenizer) -> None:
    """Models pad their matrices, so such an id can be sampled; it must not end a generation."""
    assert gpt2.token_bytes(50_300) == b"" and gpt2.token_text(50_300) == "[50300]"
    assert gpt2.decode([464, 50_300]) == "The"
    for call in (gpt2.token_bytes, gpt2.token_text):
        with pytest.raises(BadInput, match="negative"):
            call(-1)


# Starts and stops --------------------------------------------------------------------------------------


def start_with(token: str, reference: Any) -> Any:
    from tokenizers import processors

    reference.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, reference.token_to_id(token))]
    )
    return reference


@pytest.mark.parametrize(
    ("processor", "flag", "starts"),
    [
        (False, None, False),
        (True, None, True),
        (True, True, True),
        (True, False, True),
        (False, True, False),
    ],
)
def test_start_tokens_follow_the_post_processor_whatever_the_flag(
    processor: bool, flag: bool | None, starts: bool, tmp_path: Path
) -> None:
    reference = library_tokenizer("llama-bpe")
    start = reference.token_to_id("<|im_start|>")
    if processor:
        reference = start_with("<|im_start|>", reference)
    config: dict[str, Any] = {"bos_token": "<|im_start|>"}
    if flag is not None:
        config["add_bos_token"] = flag
    tokenizer = load_text_folder(folder_of(tmp_path, reference, tokenizer_config=config)).tokenizer
    assert tokenizer.start_ids == ((start,) if starts else ())
    assert tokenizer.encode("Hi")[: len(tokenizer.start_ids)] == list(tokenizer.start_ids)
    assert start not in tokenizer.encode("Hi", add_start=False)


def test_gguf_starts_follow_the_flag_then_llama_cpps_defaults() -> None:
    flag = "tokenizer.ggml.add_bos_token"
    assert load_text_gguf(byte_level_metadata("qwen2")).tokenizer.start_ids == ()
    assert load_text_gguf(byte_level_metadata("llama-bpe")).tokenizer.start_ids != ()
    assert load_text_gguf(byte_level_metadata("llama-bpe", **{flag: False})).tokenizer.start_ids == ()
    assert load_text_gguf(byte_level_metadata("qwen2", **{flag: True})).tokenizer.start_ids != ()
    assert load_text_gguf(pieces_metadata()).tokenizer.start_ids == (1,)
    assert load_text_gguf(pieces_metadata(**{flag: False})).tokenizer.start_ids == ()


def test_stops_are_the_union_of_what_all_files_name(tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<turn_over>{% endfor %}"
    reference = library_tokenizer("qwen2")
    from tokenizers import AddedToken

    reference.add_tokens([AddedToken("<turn_over>", special=True, normalized=False)])
    end, over, text = (
        reference.token_to_id(token) for token in ("<|im_end|>", "<turn_over>", "<|endoftext|>")
    )
    tokenizer = load_text_folder(
        folder_of(
            tmp_path,
            reference,
            config={"eos_token_id": 50_256_000},  # of another vocabulary: cannot come up
            generation_config={"eos_token_id": [end, 7]},
            tokenizer_config={"eos_token": "<|im_end|>", "chat_template": template},
            special_tokens_map={"eos_token": {"content": "<|im_end|>"}},
        )
    ).tokenizer
    # Looking up ordinary ids and known stops does not render the template.
    assert 5 not in tokenizer.stops and end in tokenizer.stops
    assert tokenizer.stops.template_ends is not None  # type: ignore[attr-defined]
    assert over in tokenizer.stops
    assert dict(tokenizer.stops) == {
        end: "generation_config.json, tokenizer_config.json, special_tokens_map.json, its name",
        7: "generation_config.json",
        text: "its name",
        over: "the chat template",
    }


def test_gguf_stops_are_eos_eot_eom_and_the_template() -> None:
    metadata = byte_level_metadata("qwen2")
    tokens = metadata["tokenizer.ggml.tokens"]
    template = "{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}"
    tokenizer = load_text_gguf(
        metadata
        | {
            "tokenizer.ggml.eot_token_id": 5,
            "tokenizer.ggml.eom_token_id": 2**32 - 1,  # how converters write "none"
            "tokenizer.chat_template": template,
        }
    ).tokenizer
    assert dict(tokenizer.stops) == {
        tokens.index("<|im_end|>"): "tokenizer.ggml.eos_token_id, its name",
        5: "tokenizer.ggml.eot_token_id",
        tokens.index("<|endoftext|>"): "its name",
        tokens.index("<|im_start|>"): "the chat template",
    }
    assert tokenizer.names == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


# Time --------------------------------------------------------------------------------------------------


def letters(count: int) -> str:
    import numpy as np

    return np.random.default_rng(0).integers(97, 123, size=count, dtype=np.uint8).tobytes().decode()


def test_ten_megabytes_without_a_space(gpt2: Tokenizer) -> None:
    text = "a" * 6_000_000 + letters(4_000_000)
    ids = gpt2.encode(text)  # in quadratic time it would run into the guard against hanging
    assert sum(len(gpt2.token_bytes(id_)) for id_ in ids) == 10_000_000


@pytest.mark.parametrize("size", [400_000, pytest.param(10_000_000, marks=pytest.mark.full)])
def test_megabytes_without_a_space_by_score(size: int) -> None:
    tokenizer = load_text_gguf(pieces_metadata()).tokenizer
    for text in ("a" * size, letters(size)):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text


def test_a_run_of_spaces_too_long_for_a_pattern_is_a_typed_error(tmp_path: Path) -> None:
    tokenizer = load_text_folder(folder_of(tmp_path, library_tokenizer("qwen2"))).tokenizer
    with pytest.raises(BadInput, match="run of millions of spaces"):
        tokenizer.encode("\t" * 11_000_000 + "x")
    assert tokenizer.decode(tokenizer.encode("\t" * 100_000 + "x")) == "\t" * 100_000 + "x"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, pophood.text.tokenizer, pophood.text.load, pophood.text.chat.chat_template\n"
        "assert not {'tokenizers', 'jinja2', 'numpy.random', 'torch'} & set(sys.modules), sys.modules"
    )
    processes.run([sys.executable, "-c", code], check=True)
