"""Models of one text's tokens give the ids of the whole model, and what does not fit is refused at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pophood.errors import BadFile, BadInput
from pophood.text.hf import hf_tokenizers
from pophood.text.hf.bpe import MergeLines
from pophood.text.load import load_text_gguf
from pophood.text.tokenizer import Tokenizer
from tests.text.vocabularies import byte_level_metadata

MIXED = (
    "The capital of Spain is Madrid. I'll say it's 12,345 \U0001f642 na\u00efve \u65e5\u672c\u8a9e  \n\n\tx"
    " <|im_end|> <|im_start|>user e\u0301 \u200d"
)
PRE = ["gpt-2", "smollm", "llama-bpe", "qwen2", "default"]


def encoder_of(tokenizer: Tokenizer) -> Any:
    return tokenizer.encoder


def outcome(encode: Callable[[], list[int]]) -> object:
    try:
        return encode()
    except BadInput as error:
        return str(error)


@pytest.fixture(params=PRE)
def metadata(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "default":
        return byte_level_metadata("default", cut="gpt-2")
    return byte_level_metadata(request.param)


@pytest.mark.parametrize("order", ["in order", "shuffled"])
def test_short_texts_get_the_ids_of_the_whole_model(
    order: str, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(1)
    if order == "shuffled":  # ids that do not follow the ranks of the merges
        names = ("tokens", "token_type")
        lists = zip(*(metadata[f"tokenizer.ggml.{name}"] for name in names), strict=True)
        rows = sorted(lists, key=lambda _: draw.random())
        metadata |= {f"tokenizer.ggml.{name}": [row[i] for row in rows] for i, name in enumerate(names)}
        for key, token in (("bos", "<|im_start|>"), ("eos", "<|im_end|>")):
            metadata[f"tokenizer.ggml.{key}_token_id"] = metadata["tokenizer.ggml.tokens"].index(token)
    short = load_text_gguf(metadata).tokenizer
    monkeypatch.setattr(hf_tokenizers, "FEW_CHARACTERS", -1)
    whole = load_text_gguf(metadata).tokenizer
    encoder_of(short)._few = 1 << 40
    special = sorted(whole.specials)
    for _ in range(150):
        length = draw.choice([0, 1, 2, 5, 30])
        start = draw.randrange(len(MIXED))
        text = draw.choice([MIXED[start : start + length], "".join(draw.choices(MIXED, k=length))])
        parts: list[str | int] = [special[0], text[: length // 2], special[-1], text[length // 2 :]]
        for special_too in (False, True):
            ours, theirs = (
                outcome(partial(one.encode, text, parse_special=special_too)) for one in (short, whole)
            )
            assert ours == theirs
        assert outcome(partial(short.encode_parts, parts)) == outcome(partial(whole.encode_parts, parts))
    assert "whole" not in vars(encoder_of(short).tables)
    assert "whole" in vars(encoder_of(whole).tables)


def test_the_whole_model_is_built_for_long_texts_and_after_a_few_short_ones() -> None:
    tokenizer = load_text_gguf(byte_level_metadata("smollm")).tokenizer
    tables = vars(encoder_of(tokenizer).tables)
    for _ in range(10):
        tokenizer.encode("The capital of Spain")
    assert "whole" not in tables
    for _ in range(20):
        tokenizer.encode("The capital of Spain")
    assert "whole" in tables
    long = load_text_gguf(byte_level_metadata("smollm")).tokenizer
    long.encode("The capital of Spain " * 500)
    assert "whole" in vars(encoder_of(long).tables)


@pytest.mark.parametrize("merge", ["zzq e", "e zzq", "zz qq"])
def test_a_merge_of_unknown_tokens_is_refused_when_the_file_is_opened(merge: str) -> None:
    metadata = byte_level_metadata("smollm")
    metadata["tokenizer.ggml.merges"] = [*metadata["tokenizer.ggml.merges"], merge]
    with pytest.raises(BadFile, match=r"the vocabulary and the merges do not fit together: .*vocabulary"):
        load_text_gguf(metadata)


def test_a_merge_whose_result_is_no_token_is_refused() -> None:
    metadata = byte_level_metadata("smollm")
    assert "zq" not in metadata["tokenizer.ggml.tokens"]
    metadata["tokenizer.ggml.merges"] = ["z q", *metadata["tokenizer.ggml.merges"]]
    with pytest.raises(BadFile, match="do not fit together"):
        load_text_gguf(metadata)


def test_lines_of_merges_are_pairs_by_rank() -> None:
    lines = MergeLines(["a b", "ab c", "a b", "c d"])
    assert list(lines) == [("a", "b"), ("ab", "c"), ("c", "d")]
    assert (len(lines), lines[1], lines[-2:]) == (3, ("ab", "c"), [("ab", "c"), ("c", "d")])
    assert [lines.makes(token) for token in ("ab", "abc", "a", "bc")] == [True, True, False, False]
    assert lines.results() == {"ab", "abc", "cd"} and lines.parts == {"a", "b", "ab", "c", "d"}
    assert lines.start_in(["a", "b", "ab", "abc", "cd"]) is None  # a line occurs twice
    assert MergeLines(["a b", "c d"]).start_in(["ab\ncd", "ab", "cd"]) == 1
    assert list(MergeLines([])) == [] and MergeLines([]).start_in(["a"]) is None
