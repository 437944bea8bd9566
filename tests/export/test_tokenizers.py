"""Tokenizers across formats: SentencePiece-style ones, every pre-tokenizer, start and end tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadInput, Unsupported
from pophood.export.gguf.gguf_tokenizer import tokenizer_keys
from pophood.export.hf.hf_tokenizer import merges_of_scores, write_tokenizer
from pophood.export.job import export_model
from pophood.export.proof import AWKWARD, PASSAGE
from pophood.model.bundle import Bundle, open_bundle
from pophood.text.gguf.patterns import GPT2, LLAMA3, QWEN2
from pophood.text.gguf.pretokenizers import CUT_BY_NAME, CUTS
from pophood.text.load import load_text_folder
from tests.text.test_authorities import llama2_like
from tests.text.texts import FRAGMENTS, cut_strings
from tests.text.vocabularies import (
    byte_level_metadata,
    folder_of,
    library_tokenizer,
    pairs_metadata,
    pieces_metadata,
)
from tests.tiny import tiny_folder, tiny_gguf
from tests.tiny_vocabulary import vocabulary

SIZES: dict[str, Any] = {"n_layer": 1, "n_embd": 32, "head_dim": 8, "n_inner": 32, "n_positions": 32}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
POSSESSIVE = (  # cl100k's, with the digits left open
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|%s| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
TEXTS = (PASSAGE, "Hello  world", "naïve café 日本", " a b ", "x\n\ny", *FRAGMENTS)


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def with_metadata(path: Path, metadata: dict[str, Any]) -> Bundle:
    """Make a random llama with a vocabulary in GGUF's keys."""
    keys = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    size = len(keys["tokenizer.ggml.tokens"])
    return open_bundle(tiny_gguf(path, "llama", tokenizer=False, keys=keys, vocab_size=size, **SIZES))


def llama_ids(path: Path, text: str) -> list[int]:
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs Python package: llama-cpp-python")
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        ids: list[int] = model.tokenize(text.encode(), add_bos=True, special=False)
    finally:
        model.close()
    return ids


@pytest.mark.parametrize("add_space", [True, False])
def test_sentencepiece_there_and_back(tmp_path: Path, add_space: bool) -> None:
    from transformers import AutoTokenizer

    metadata = pieces_metadata(**{"tokenizer.ggml.add_space_prefix": add_space})
    # Of equal scores the leftmost is merged in GGUF, and none is equal in tokenizer.json: none is here.
    scores = [
        score if score > -1e4 else score - i for i, score in enumerate(metadata["tokenizer.ggml.scores"])
    ]
    metadata["tokenizer.ggml.scores"] = [2 * score - 0.001 * i for i, score in enumerate(scores)]
    bundle = with_metadata(tmp_path / "base.gguf", metadata)
    export_model(bundle, tmp_path / "folder", threads=1)
    folder = open_bundle(tmp_path / "folder")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "folder")
    export_model(folder, tmp_path / "again.gguf", threads=1)
    again = open_bundle(tmp_path / "again.gguf")
    for text in TEXTS:
        ids = bundle.tokenizer.encode(text)
        assert folder.tokenizer.encode(text) == ids
        if "<" not in text:  # theirs parses special tokens wherever they are typed
            assert theirs.encode(text) == ids
        assert again.tokenizer.encode(text) == ids
        assert folder.tokenizer.decode(ids) == again.tokenizer.decode(ids) == bundle.tokenizer.decode(ids)
    assert llama_ids(tmp_path / "again.gguf", PASSAGE) == bundle.tokenizer.encode(PASSAGE)
    assert set(again.tokenizer.stops) == set(bundle.tokenizer.stops) == set(folder.tokenizer.stops)


# glm4 and chatglm-bpe cut as names before them do, which are what is written.
WAYS = [cut.names[0] for cut in CUTS if cut.names[0] not in ("glm4", "chatglm-bpe")]


@pytest.mark.parametrize("pre", WAYS)
def test_every_way_to_cut_words(tmp_path: Path, pre: str) -> None:
    bundle = with_metadata(tmp_path / "base.gguf", byte_level_metadata(pre, cut="qwen2"))
    export_model(bundle, tmp_path / "folder", threads=1)
    folder = open_bundle(tmp_path / "folder")
    keys, notes = tokenizer_keys(folder, None)
    assert (keys["tokenizer.ggml.pre"], notes) == (pre, [])
    export_model(folder, tmp_path / "again.gguf", "f16", threads=1)
    again = open_bundle(tmp_path / "again.gguf")
    for text in TEXTS:
        ids = bundle.tokenizer.encode(text)
        assert folder.tokenizer.encode(text) == again.tokenizer.encode(text) == ids
    parsed = [b.tokenizer.encode(AWKWARD, parse_special=True) for b in (bundle, folder, again)]
    assert parsed[0] == parsed[1] == parsed[2]
    assert llama_ids(tmp_path / "again.gguf", PASSAGE) == bundle.tokenizer.encode(PASSAGE)
    assert set(again.tokenizer.stops) == set(bundle.tokenizer.stops)
    assert again.tokenizer.specials == bundle.tokenizer.specials


@pytest.mark.parametrize("pre", WAYS)
def test_what_runs_from_gguf_runs_from_the_folder_with_the_same_ids(tmp_path: Path, pre: str) -> None:
    """On a vocabulary in which every split has its own ids, pophood and transformers agree."""
    from transformers import AutoTokenizer

    bundle = with_metadata(tmp_path / "base.gguf", pairs_metadata(pre))
    (tmp_path / "folder").mkdir()
    write_tokenizer(bundle, tmp_path / "folder", None)
    ours = load_text_folder(tmp_path / "folder").tokenizer
    theirs = AutoTokenizer.from_pretrained(tmp_path / "folder")
    for text in cut_strings(400, seed=30):
        if "'ſ" in text:  # the one difference that is left
            continue
        ids = bundle.tokenizer.encode(text)
        assert ours.encode(text) == ids, text
        assert theirs.encode(text) == ids, text


@pytest.mark.parametrize("pre", WAYS)
def test_a_published_folder_gets_its_name(tmp_path: Path, pre: str) -> None:
    """A published pre-tokenizer of tokenizer.json keeps its ids in GGUF and llama.cpp."""
    cut = CUT_BY_NAME[pre]
    published = {"type": "Sequence", "pretokenizers": list(cut.published)}
    tiny_folder(tmp_path / "base", "llama", vocab_size=1600, tokenizer=False, **SIZES)
    trained_so = library_tokenizer(json.dumps(published), ignore_merges=cut.ignore_merges)
    bundle = open_bundle(folder_of(tmp_path / "base", trained_so))
    keys, _ = tokenizer_keys(bundle, None)
    assert keys["tokenizer.ggml.pre"] == pre
    export_model(bundle, tmp_path / "out.gguf", "f16", threads=1)
    assert llama_ids(tmp_path / "out.gguf", PASSAGE) == bundle.tokenizer.encode(PASSAGE)


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([split(LLAMA3.replace(r"\r", "\r").replace(r"\n", "\n")), BYTES], "dbrx"),
        ([split(POSSESSIVE % r"\p{N}{1,3}"), BYTES], "dbrx"),
        ([split(POSSESSIVE % r"\p{N}"), BYTES], "qwen2"),
        ([split(GPT2), BYTES], "gpt-2"),
        ([split(GPT2.removesuffix(r"|\s+")), BYTES], "gpt-2"),
        ([split(r"\p{N}"), split(GPT2), BYTES], "smollm"),
        (
            [
                *map(split, ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+")),
                *({"type": "Digits", "individual_digits": True}, BYTES),
            ],
            "deepseek-coder",
        ),
    ],
)
def test_other_spellings_of_a_pattern_get_its_name(
    tmp_path: Path, steps: list[dict[str, Any]], name: str
) -> None:
    change = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    keys, _ = tokenizer_keys(folder_with(tmp_path / "base", change), None)
    assert keys["tokenizer.ggml.pre"] == name


def test_added_tokens_beside_vocab_and_merges_reach_gguf(tmp_path: Path) -> None:
    added = {"<tool>": 512, "<|im_end|>": 513, "<q>": 514}
    tiny_folder(tmp_path / "base", "gpt2", vocab_size=520, n_layer=1, n_positions=32)
    words = vocabulary("gpt2", 512)
    (tmp_path / "base" / "vocab.json").write_text(json.dumps(words.ids), encoding="utf-8")
    (tmp_path / "base" / "merges.txt").write_text("\n".join(words.merges), encoding="utf-8")
    (tmp_path / "base" / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    named = json.dumps({"eos_token": "<|im_end|>"})
    (tmp_path / "base" / "special_tokens_map.json").write_text(named, encoding="utf-8")
    bundle = open_bundle(tmp_path / "base")
    export_model(bundle, tmp_path / "out.gguf", "f16", threads=1)
    export_model(bundle, tmp_path / "copy", threads=1)
    text = "a<tool>b<q> <|im_end|>"
    ids = bundle.tokenizer.encode(text)
    assert {512, 514} < set(ids) and 513 not in ids
    assert llama_ids(tmp_path / "out.gguf", text) == ids
    for written in ("out.gguf", "copy"):
        assert open_bundle(tmp_path / written).tokenizer.encode(text) == ids
        assert open_bundle(tmp_path / written).tokenizer.specials[513] == "<|im_end|>"


def test_a_word_that_merges_do_not_reach_keeps_its_option(tmp_path: Path) -> None:
    """Qwen2's pre-tokenizer has no name with `ignore_merges`, which only matters for words that need it."""
    way = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(QWEN2), BYTES]}}
    bundle = folder_with(tmp_path / "base", way, ignore_merges=True)
    with pytest.raises(Unsupported, match="GGUF has no name"):
        tokenizer_keys(bundle, None)
    document = json.loads((tmp_path / "base" / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = document["model"]["vocab"]
    for word in ("Ġqzqzq", "qzqz"):
        name = f"<|{word}|>"
        vocab[name] = vocab.pop(word)
        document["added_tokens"].append({"id": vocab[name], "content": name})
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    bundle = open_bundle(tmp_path / "base")
    assert tokenizer_keys(bundle, None)[0]["tokenizer.ggml.pre"] == "qwen2"
    export_model(bundle, tmp_path / "out.gguf", "f16", threads=1)
    assert llama_ids(tmp_path / "out.gguf", PASSAGE) == bundle.tokenizer.encode(PASSAGE)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Sequence", "normalizers": []}},
        {"model": {"unk_token": "<|endoftext|>", "fuse_unk": True}},
        {"model": {"byte_fallback": True}},
    ],
)
def test_what_changes_no_ids_does_not_refuse_an_export(tmp_path: Path, change: dict[str, Any]) -> None:
    """deepseek-llm's normalizer is an empty sequence; its unknown token is never used."""
    bundle = folder_with(tmp_path / "base", change)
    keys, notes = tokenizer_keys(bundle, None)
    assert (keys["tokenizer.ggml.pre"], notes) == ("dbrx", [])


@pytest.mark.parametrize("normalizer", ["NFKC", "Lowercase", "NFD"])
def test_what_spaces_have_no_word_for(tmp_path: Path, normalizer: str) -> None:
    reference = llama2_like()
    document = json.loads(reference.to_str())
    document["normalizer"]["normalizers"].insert(0, {"type": normalizer})
    tiny_folder(tmp_path, "llama", vocab_size=1800, tokenizer=False, **SIZES)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(Unsupported, match=normalizer):
        tokenizer_keys(open_bundle(tmp_path), None)


def folder_with(
    path: Path, change: dict[str, Any], size: int = 1600, ignore_merges: bool = False, **files: Any
) -> Bundle:
    """Make the folder of a random llama with changes in tokenizer.json and in its model."""
    tiny_folder(path, "llama", vocab_size=size, tokenizer=False, **SIZES)
    folder_of(path, library_tokenizer("llama-bpe", ignore_merges=ignore_merges), **files)
    document = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    document |= change | {"model": document["model"] | change.get("model", {})}
    (path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return open_bundle(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pre_tokenizer": {**BYTES, "add_prefix_space": True}}, "a space before the text"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {
                            "type": "Split",
                            "pattern": {"Regex": r"\s+"},
                            "behavior": "Removed",
                            "invert": False,
                        },
                        BYTES,
                    ],
                }
            },
            "Split",
        ),
    ],
)
def test_what_gguf_has_no_name_for(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=r"export it as a folder|GGUF has no") as caught:
        tokenizer_keys(folder_with(tmp_path / "base", change), None)
    assert words in str(caught.value)


def test_nfc_is_said_aloud(tmp_path: Path) -> None:
    notes = tokenizer_keys(folder_with(tmp_path / "base", {"normalizer": {"type": "NFC"}}), None)[1]
    assert ["NFC" in note for note in notes] == [True]


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the tokenizer has 1,5.. tokens, but the model has rows for 512"):
        tokenizer_keys(folder_with(tmp_path / "base", {}, size=512), None)


def test_several_ends_have_their_keys(tmp_path: Path) -> None:
    bundle = folder_with(
        tmp_path / "base",
        {},
        tokenizer_config={
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "bos_token": "<|im_start|>",
        },
    )
    keys, _ = tokenizer_keys(bundle, "a template")
    names = {
        name: bundle.tokenizer.token_text(keys[f"tokenizer.ggml.{name}"])
        for name in ("eos_token_id", "eot_token_id", "padding_token_id", "bos_token_id")
    }
    assert list(names.values()) == ["<|im_end|>", "<|endoftext|>", "<|endoftext|>", "<|im_start|>"]
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert keys["tokenizer.chat_template"] == "a template"


def test_scores_become_merges() -> None:
    ids = {"a": 0, "b": 1, "ab": 2, "bb": 3, "abb": 4}
    merges = merges_of_scores(ids, [0, 0, -2.0, -1.0, -3.0])
    assert merges == [("b", "b"), ("a", "b"), ("a", "bb"), ("ab", "b")]
