"""How byte-level vocabularies cut text into words before merging: the patterns, and GGUF's names for them.

A pattern from a file is run only if it is one of those below. They are the published ones, and each walks a
text once; an unknown pattern could take for ever on a text that its author chose.
"""

from __future__ import annotations

from dataclasses import dataclass

# The tokenizers of GPT-2 (encoder.py of its release), Llama 3 and Qwen2 (their tokenizer.json).
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# What else is published for models of these families, or for what people train in their manner.
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
KNOWN_PATTERNS = frozenset(
    {
        GPT2,
        GPT2.removesuffix(r"|\s+"),
        LLAMA3,
        QWEN2,
        QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"),
        LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}{1,2}"),
        _GPT4,
        _GPT4.replace(r"\p{N}{1,3}", r"\p{N}{1,2}"),
        _CASED % (_ENGLISH, _ENGLISH, "{1,3}"),
        _CASED % ("", "", ""),
        r"\p{N}",
        r"\p{N}{1,3}",
        r"\d",
        r"[0-9]",
        r"[\r\n]",
        r"\s+",
    }
)


@dataclass(frozen=True, slots=True)
class WordCut:
    """One value of GGUF's `tokenizer.ggml.pre`: a pre-tokenizer, and what llama.cpp ties to it."""

    pre_tokenizer: dict[str, object]  # as tokenizer.json writes it
    ignore_merges: bool = False  # a word that is a token as a whole is not merged up to it
    add_start: bool = False


def _byte_level(use_regex: bool) -> dict[str, object]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*steps: dict[str, object]) -> dict[str, object]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


# llama.cpp spells the contractions out, so that the long s (U+017F) is no s to it, as it is to "(?i:'s)".
_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_IGNORING_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3_CUT = _sequence(_split(LLAMA3.replace(_IGNORING_CASE, _CONTRACTIONS)), _byte_level(use_regex=False))
_QWEN2_CUT = _sequence(_split(QWEN2.replace(_IGNORING_CASE, _CONTRACTIONS)), _byte_level(use_regex=False))
_DIGITS_CUT = _sequence({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True))

_GROUPS = (
    # GPT-2's own, and those that llama.cpp cuts the same way
    (("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat"), WordCut(_byte_level(use_regex=True))),
    # single digits first, then GPT-2
    (("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), WordCut(_DIGITS_CUT)),
    (
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        WordCut(_LLAMA3_CUT, ignore_merges=True, add_start=True),
    ),
    (("dbrx", "smaug-bpe"), WordCut(_LLAMA3_CUT)),
    (("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"), WordCut(_QWEN2_CUT)),
)
WORD_CUTS: dict[str, WordCut] = {name: cut for names, cut in _GROUPS for name in names}
