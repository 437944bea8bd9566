"""The table of pre-tokenizers: every pattern is linear on texts chosen against it, and read as published."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import Unsupported
from pophood.text.gguf import patterns
from pophood.text.gguf.pretokenizers import (
    CUT_BY_NAME,
    CUTS,
    ELSEWHERE,
    KNOWN_PATTERNS,
    steps_of,
    with_fast_patterns,
)
from pophood.text.load import load_text_folder
from tests.text.texts import cut_strings
from tests.text.vocabularies import folder_of, library_tokenizer, pre_tokenizer

LONG = 20_000  # characters: all of these texts take a quadratic pattern 36 s, a linear one half a second
SECONDS = 15.0  # of the processor, so a busy machine changes nothing
CHOSEN = (
    *(run * LONG for run in (" ", "\n", "\u3000", "A", "É", "\u0301", "!", "1", "日", "ᾳ")),
    *(run * LONG + end for run in (" ", "\n", "\u3000", "\u2003", " \t") for end in ("x", "1", "!", "日")),
    *(
        run * (LONG // 2)
        for run in ("aA", "Aa", "éÉ", "'s", "a ", "1a", "!\n", "\r\n", " \n", "\u0301a", "(|", "x\u3000")
    ),
    *("A" * LONG + "é", "É" * LONG + "a1", "x" + " " * LONG, "1" * LONG + "a", "'" * LONG + "s"),
)
STAGES: dict[str, Any] = {
    **{f"{cut.names[0]} in GGUF": cut.in_gguf for cut in CUTS},
    **{
        f"{cut.names[0]} as published": {"type": "Sequence", "pretokenizers": list(cut.published)}
        for cut in CUTS
        if cut.differing
    },
    **{
        pattern: {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in (patterns.TWO_DIGITS, r"\d", "[0-9]", r"\s+")  # the known ones of no cut
    },
}


@pytest.mark.parametrize("stage", STAGES)
def test_no_text_makes_a_pattern_slow(stage: str) -> None:
    splitter = pre_tokenizer(json.dumps(with_fast_patterns(STAGES[stage])))
    started = time.process_time()
    for text in CHOSEN:
        splitter.pre_tokenize_str(text)
        assert time.process_time() - started < SECONDS, text[:10]


def test_the_text_that_is_slow_for_a_published_pattern() -> None:
    r"""`\s+$` of deepseek-llm is tried at each space of a run; its replacement has the same matches."""
    slow = {"type": "Split", "pattern": {"Regex": r"\s+$"}, "behavior": "Isolated", "invert": False}
    fast = with_fast_patterns({"type": "Sequence", "pretokenizers": [slow]})
    assert fast == {"type": "Sequence", "pretokenizers": [{**slow, "pattern": {"Regex": r"(?<!\s)\s+$"}}]}
    before, after = (pre_tokenizer(json.dumps(stage)) for stage in (slow, fast))
    for text in cut_strings(2_000, seed=50):
        for line in text.replace("\r", "\n").split("\n"):  # they are cut off before, in that tokenizer
            assert before.pre_tokenize_str(line) == after.pre_tokenize_str(line), line


def test_every_name_and_every_cut_is_in_the_table_once() -> None:
    names = [name for cut in CUTS for name in cut.names]
    assert len(names) == len(set(names)) == len(CUT_BY_NAME)
    assert not CUT_BY_NAME.keys() & ELSEWHERE
    for asked in ("tekken", "gpt-4o", "llama4", "deepseek-llm", "deepseek-coder", "seed-coder", "viking"):
        assert asked in CUT_BY_NAME
    assert {"falcon", "minerva-7b", "qwen35", "default"} <= CUT_BY_NAME.keys()


def test_the_page_on_formats_names_every_way() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [cut.names[0] for cut in CUTS if f"`{cut.names[0]}`" not in page] == []
    told = {name for name in CUT_BY_NAME.keys() | ELSEWHERE if f"`{name}`" in page}
    assert {"exaone-moe", "tiny_aya", "kimi-k2", "superbpe"} == told & ELSEWHERE
    assert {cut.names[0] for cut in CUTS if cut.differing} <= told


def test_every_known_pattern_can_come_from_a_file() -> None:
    """A pattern is recognised by its canonical text, so the table must be canonical."""
    for pattern in KNOWN_PATTERNS:
        assert patterns.canonical(pattern) == pattern
        for written in (pattern, pattern.replace(r"\r", "\r").replace(r"\n", "\n")):
            assert patterns.canonical(written) == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "[\r\n]",
        patterns.V3.replace(r"\r", "\r").replace(r"\n", "\n"),
        patterns.SEED_CODER.replace(r"\r", "\r").replace(r"\n", "\n"),
        patterns.BLOOM,
        r"\s+$",
    ],
)
def test_patterns_with_line_ends_as_they_are_published(pattern: str, tmp_path: Path) -> None:
    """DeepSeek's and Seed's files contain the characters CR and LF, not their escapes."""
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    reference = library_tokenizer(json.dumps({"type": "Sequence", "pretokenizers": [step, BYTES]}))
    tokenizer = load_text_folder(folder_of(tmp_path, reference)).tokenizer
    reference.encode_special_tokens = True
    for text in cut_strings(500, seed=51):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids, text


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize("pre", [cut.names[0] for cut in CUTS])
def test_published_folders_are_the_library(pre: str, tmp_path: Path) -> None:
    published = {"type": "Sequence", "pretokenizers": list(CUT_BY_NAME[pre].published)}
    reference = library_tokenizer(json.dumps(published), ignore_merges=CUT_BY_NAME[pre].ignore_merges)
    tokenizer = load_text_folder(folder_of(tmp_path, reference)).tokenizer
    reference.encode_special_tokens = True
    for text in cut_strings(1_000, seed=52):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"[\r\n]+", r"\s+$|x", r"\d{1,3}(?=(?:\d{3})*\b)"])
def test_other_patterns_are_refused_by_name(pattern: str, tmp_path: Path) -> None:
    document = json.loads(library_tokenizer("qwen2").to_str())
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(Unsupported, match="not one of the"):
        load_text_folder(tmp_path)


def test_steps_are_equal_where_cuts_are() -> None:
    digits = {"type": "Digits", "individual_digits": True}
    plain = {"type": "ByteLevel", "add_prefix_space": False}
    one = steps_of({"type": "Sequence", "pretokenizers": [digits, plain]})
    assert one == (r"\p{N}", patterns.GPT2, "ByteLevel")
    assert steps_of(None) == ("nothing",)
    assert steps_of({**plain, "add_prefix_space": True}) == ("ByteLevel with a space before the text",)
    assert steps_of({"type": "Split", "pattern": {"String": " "}, "behavior": "Removed"}) == (
        "Split ('removed', False)",
    )
