"""The table of pre-tokenizers (ways to split text into words), for tokenizer.json and under GGUF's names.

Readers and writers of folders and of GGUF files all follow this one table: a pattern in it is accepted from a
tokenizer.json, and a name in it is a value of `tokenizer.ggml.pre`.

llama.cpp's patterns are those of llama-cpp-python 0.3.36. Names of encoder models are left out, and so are
names whose patterns are not known to take time in proportion to the text (see ELSEWHERE).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pophood.text.gguf import patterns as p

Step = dict[str, Any]  # one pre-tokenizer, as tokenizer.json writes it

DEFAULT = "default"  # llama.cpp's name for its behaviour without a name


def byte_level(use_regex: bool = False, add_prefix_space: bool = False) -> Step:
    """Return the step that spells bytes; with `use_regex` it splits words as GPT-2 does."""
    flags = {"add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **flags}


def split(pattern: str) -> Step:
    """Return the step that makes every match of a pattern a word of its own."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _splits(*patterns: str) -> tuple[Step, ...]:
    return (*map(split, patterns), byte_level())


_EACH_DIGIT: Step = {"type": "Digits", "individual_digits": True}
_DIGIT_RUNS: Step = {"type": "Digits", "individual_digits": False}
_PUNCTUATION_RUNS: Step = {"type": "Punctuation", "behavior": "Contiguous"}


@dataclass(frozen=True, slots=True)
class WordCut:
    """One way to split words, and the settings that llama.cpp derives from its names.

    `published` are the steps in tokenizer.json files. `differing` are llama.cpp's steps, where it splits some
    texts differently (apart from the long s of a contraction, see `patterns.spelled_out`).
    """

    names: tuple[str, ...]  # values of tokenizer.ggml.pre; exports write the first
    published: tuple[Step, ...]
    differing: tuple[Step, ...] = ()
    ignore_merges: bool = False  # a word that is a token is taken whole, without merging
    add_start: bool = False

    @property
    def in_gguf(self) -> Step:
        """The pre-tokenizer that splits as llama.cpp does under these names."""
        steps = [dict(step) for step in self.differing or self.published]
        for step in steps:
            if step["type"] == "Split":
                step["pattern"] = {"Regex": p.spelled_out(step["pattern"]["Regex"])}
        return sequence(steps)

    @property
    def in_folder(self) -> Step:
        """The pre-tokenizer to write into a tokenizer.json, so that a GGUF file's ids stay the same."""
        return sequence(list(self.differing or self.published))


def sequence(steps: list[Step]) -> Step:
    """Return the pre-tokenizer that takes these steps in order."""
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


CUTS = (
    WordCut(
        (
            *("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat"),
            *("trillion", "granite-docling", "a.x-4.0", "mellum"),
        ),
        (byte_level(use_regex=True),),
    ),
    WordCut(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        (_EACH_DIGIT, byte_level(use_regex=True)),
    ),
    WordCut(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        _splits(p.LLAMA3),
        ignore_merges=True,
        add_start=True,
    ),
    WordCut(("glm4", "glm5"), _splits(p.LLAMA3), ignore_merges=True),
    WordCut(("dbrx", "smaug-bpe"), _splits(p.LLAMA3)),
    WordCut(("chatglm-bpe",), _splits(p.LLAMA3)),
    WordCut(
        (
            *("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "kormo", "f2llmv2"),
            *("solar-open", "grok-2", "bailingmoe", "bailingmoe2", "llada-moe"),
        ),
        _splits(p.QWEN2),
    ),
    WordCut(("qwen35",), _splits(p.QWEN35)),
    WordCut(
        ("tekken",),
        _splits(p.TEKKEN),
        _splits(p.TEKKEN_IN_LLAMA_CPP),
        ignore_merges=True,
        add_start=True,
    ),
    WordCut(
        ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
        _splits(p.GPT4O),
        _splits(p.GPT4O_IN_LLAMA_CPP),
    ),
    WordCut(
        ("deepseek-llm",),
        (
            *map(split, (p.NEWLINE, p.DEEPSEEK_LETTERS, p.DEEPSEEK_PUNCTUATION, p.LAST_SPACES)),
            *(split(p.DEEPSEEK_EAST_ASIAN), _EACH_DIGIT, byte_level()),
        ),
        _splits(
            *(p.NEWLINE, p.DEEPSEEK_LETTERS, p.DEEPSEEK_PUNCTUATION_IN_LLAMA_CPP, p.LAST_SPACES),
            *(p.DEEPSEEK_EAST_ASIAN_IN_LLAMA_CPP, p.DIGITS),
        ),
    ),
    WordCut(
        ("deepseek-coder",),
        (
            *map(split, (p.NEWLINE, p.CODER_LETTERS, p.CODER_PUNCTUATION, p.DEEPSEEK_EAST_ASIAN)),
            *(_EACH_DIGIT, byte_level()),
        ),
        _splits(
            *(p.NEWLINE, p.CODER_LETTERS, p.CODER_PUNCTUATION),
            *(p.DEEPSEEK_EAST_ASIAN_IN_LLAMA_CPP, p.ONE_DIGIT),
        ),
    ),
    WordCut(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
        _splits(p.THREE_DIGITS, p.V3_EAST_ASIAN, p.V3),
    ),
    WordCut(("seed-coder",), _splits(p.SEED_CODER)),
    WordCut(("minicpm5",), _splits(p.THREE_DIGITS, p.MINICPM5), ignore_merges=True),
    WordCut(("jais-2",), _splits(p.JAIS2)),
    WordCut(("ufakzeka",), _splits(p.UFAKZEKA)),
    WordCut(("viking",), (split(p.BLOOM), _EACH_DIGIT, byte_level())),
    WordCut(("bloom", "poro-chat", "gpt3-finnish"), _splits(p.BLOOM)),
    WordCut(
        ("falcon",),
        (_PUNCTUATION_RUNS, byte_level(use_regex=True), _DIGIT_RUNS, split(p.THREE_ASCII_DIGITS)),
        _splits(p.FALCON_PUNCTUATION, p.GPT2, p.THREE_ASCII_DIGITS),
    ),
    WordCut((DEFAULT,), _splits(p.DEFAULT_PUNCTUATION, p.GPT2, p.DIGITS, p.THREE_ASCII_DIGITS)),
)

CUT_BY_NAME: Mapping[str, WordCut] = {name: cut for cut in CUTS for name in cut.names}

# Names that llama.cpp knows and pophood refuses: falling back to the default would split differently.
ELSEWHERE = frozenset(
    {
        *("afmoe", "chameleon", "cohere2moe", "exaone-moe", "gemma4", "granite-embed-multi-311m"),
        *("granite-embed-multi-97m", "jina-de", "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de"),
        *("jina-v2-es", "jina-v5-nano", "kimi-k2", "laguna", "modern-bert", "roberta-bpe", "sarvam-moe"),
        *("spark2_5", "superbpe", "tiny_aya", "whitespace", "youtu"),
    }
)


def steps_of(pre_tokenizer: object) -> tuple[str, ...]:
    r"""Describe the steps of a pre-tokenizer, one text each; those known to be equivalent compare equal.

    >>> steps_of({"type": "ByteLevel", "add_prefix_space": False})
    ("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", 'ByteLevel')
    """
    steps = list(_spelled(pre_tokenizer))
    if steps and steps[-1] == "ByteLevel regex":
        steps[-1:] = [p.GPT2, "ByteLevel"]
    return tuple(steps)


def _spelled(stage: object) -> Iterator[str]:
    if not isinstance(stage, Mapping):
        yield "nothing"
        return
    match stage.get("type"):
        case "Sequence":
            for inner in stage["pretokenizers"]:
                yield from _spelled(inner)
        case "Split":
            behaviour = (str(stage.get("behavior")).lower(), stage.get("invert", False))
            regex = stage["pattern"].get("Regex")
            pattern = f"text {stage['pattern'].get('String')!r}" if regex is None else p.canonical(str(regex))
            yield pattern if behaviour == ("isolated", False) else f"Split {behaviour}"
        case "ByteLevel" if not stage.get("add_prefix_space"):
            yield "ByteLevel regex" if stage.get("use_regex", True) else "ByteLevel"
        case "Digits":
            yield p.ONE_DIGIT if stage.get("individual_digits") else p.DIGITS
        case "Punctuation":
            yield f"Punctuation {str(stage.get('behavior', 'isolated')).lower()}"
        case other:
            yield f"{other} with a space before the text" if other == "ByteLevel" else str(other)


def _patterns() -> Iterator[str]:
    for cut in CUTS:
        for step in (*cut.published, *cut.differing):
            if step["type"] == "Split":
                yield from (step["pattern"]["Regex"], p.spelled_out(step["pattern"]["Regex"]))
    yield from (p.TWO_DIGITS, r"\d", "[0-9]", r"\s+")  # published, but without a name in GGUF


KNOWN_PATTERNS = frozenset(_patterns())


def with_fast_patterns(pre_tokenizer: object) -> object:
    """Rewrite every pattern of a pre-tokenizer to the form that takes time in proportion to the text."""
    if not isinstance(pre_tokenizer, dict):
        return pre_tokenizer
    if pre_tokenizer.get("type") == "Sequence":
        inner = [with_fast_patterns(step) for step in pre_tokenizer["pretokenizers"]]
        return {**pre_tokenizer, "pretokenizers": inner}
    pattern = pre_tokenizer.get("pattern")
    if isinstance(pattern, dict) and "Regex" in pattern:
        return {**pre_tokenizer, "pattern": {"Regex": p.fast(str(pattern["Regex"]))}}
    return pre_tokenizer


def _names_by_steps() -> dict[tuple[tuple[str, ...], bool], WordCut]:
    cuts: dict[tuple[tuple[str, ...], bool], WordCut] = {}
    for cut in CUTS:
        for stage in (sequence(list(cut.published)), cut.in_gguf, cut.in_folder):
            cuts.setdefault((steps_of(stage), cut.ignore_merges), cut)
    return cuts


CUT_BY_STEPS: Mapping[tuple[tuple[str, ...], bool], WordCut] = _names_by_steps()
