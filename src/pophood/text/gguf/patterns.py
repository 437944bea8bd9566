"""The regular expressions with which byte-level tokenizers split text into words before merging.

A pattern from a file is run only if it is in `pretokenizers.KNOWN_PATTERNS`. Those are the published ones,
and each reads a text once; an unknown pattern could run forever on a text that its author chose.
"""

from __future__ import annotations

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# llama.cpp writes the cases out, so it does not take the long s (U+017F) for an s, as "(?i:'s)" does.
_ENGLISH_SPELLED_OUT = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"

# The tokenizers of GPT-2 (encoder.py of its release), Llama 3, Qwen2 and Qwen3.5 (their tokenizer.json).
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
# cl100k with two digits at a time, as in small models that people train themselves. It has no name in GGUF.
TWO_DIGITS = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}{1,2}")

# Jais 2: Llama 3 with white space split into powers of two.
JAIS2 = LLAMA3.removesuffix(r"|\s+(?!\S)|\s+") + "".join(
    rf"|\s{{{count}}}(?!\S)" for count in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")
)
JAIS2 += r"|\s{1}"
SEED_CODER = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}{1}").replace(
    r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}\r\n]+"
)
MINICPM5 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")
UFAKZEKA = QWEN2.removeprefix(_ENGLISH + "|")

_CASED = (
    r"[^\r\n\p{L}\p{N}]?[%(upper)s]*[%(lower)s]+%(english)s|[^\r\n\p{L}\p{N}]?[%(upper)s]+[%(lower)s]*%(english)s"
    r"|%(digits)s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASES = {"upper": r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", "lower": r"\p{Ll}\p{Lm}\p{Lo}\p{M}"}
# llama.cpp knows the case of ASCII letters only: any other letter is both, and a mark is not a letter.
_ASCII_CASES = {"upper": r"\p{L}&&[^a-z]", "lower": r"\p{L}&&[^A-Z]"}
_ONE_DIGIT = {"english": "", "digits": r"\p{N}"}
_THREE_DIGITS = {"english": _ENGLISH + "?", "digits": r"\p{N}{1,3}"}
TEKKEN = _CASED % {**_CASES, **_ONE_DIGIT}
TEKKEN_IN_LLAMA_CPP = _CASED % {**_ASCII_CASES, **_ONE_DIGIT}
GPT4O = _CASED % {**_CASES, **_THREE_DIGITS}
GPT4O_IN_LLAMA_CPP = _CASED % {**_ASCII_CASES, **_THREE_DIGITS}

ONE_DIGIT = r"\p{N}"
THREE_DIGITS = r"\p{N}{1,3}"
DIGITS = r"\p{N}+"
THREE_ASCII_DIGITS = "[0-9][0-9][0-9]"
NEWLINE = r"[\r\n]"
LAST_SPACES = r"\s+$"

# DeepSeek's three generations (tokenizer.json of deepseek-llm, deepseek-coder and DeepSeek-V3).
_LATIN_TO_CYRILLIC = (
    "A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
DEEPSEEK_LETTERS = rf"\s?[{_LATIN_TO_CYRILLIC}]+"
_PUNCTUATION = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f"
DEEPSEEK_PUNCTUATION = rf"\s?[{_PUNCTUATION}\u3000-\u3002]+"
_EAST_ASIAN = "\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff"
DEEPSEEK_EAST_ASIAN = rf"[{_EAST_ASIAN}]+"
# llama.cpp matches these two on a text in which all white space beyond ASCII was replaced by a vertical tab.
DEEPSEEK_PUNCTUATION_IN_LLAMA_CPP = rf"\s?[{_PUNCTUATION}\u3001\u3002]+"
DEEPSEEK_EAST_ASIAN_IN_LLAMA_CPP = rf"[{_EAST_ASIAN}&&[^\s]]+"
CODER_LETTERS = r"\s?\p{L}+"
CODER_PUNCTUATION = r"\s?\p{P}+"
V3_EAST_ASIAN = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# BLOOM, and Viking after it: words end at white space, punctuation, "(", "|" and ")".
_WORD_ENDS = ".,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c"
BLOOM = rf" ?[^(\s|[{_WORD_ENDS}])]+"

# llama.cpp's "falcon" and its default, which is Falcon's without the grave accent.
FALCON_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
DEFAULT_PUNCTUATION = FALCON_PUNCTUATION.replace("`", "")

# Other spellings in published files, each equivalent to a pattern above on every text.
_SPELLINGS = {
    GPT2.removesuffix(r"|\s+"): GPT2,
    **{
        rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+": same
        for digits, same in ((THREE_DIGITS, LLAMA3), (r"\p{N}{1,2}", TWO_DIGITS), (ONE_DIGIT, QWEN2))
    },
    BLOOM.replace("[" + _WORD_ENDS + "]", _WORD_ENDS): BLOOM,
}
# The same matches, without another attempt from every space of a long run.
_FASTER = {LAST_SPACES: r"(?<!\s)\s+$"}


def canonical(pattern: str) -> str:
    r"""Return a pattern in the spelling of this file: CR and LF as `\r` and `\n`, known variants unified.

    >>> canonical("[\r\n]")
    '[\\r\\n]'
    """
    pattern = pattern.replace("\r", r"\r").replace("\n", r"\n")
    return _SPELLINGS.get(pattern, pattern)


def spelled_out(pattern: str) -> str:
    """Return the pattern as llama.cpp runs it, with the cases of English contractions written out."""
    return pattern.replace(_ENGLISH, _ENGLISH_SPELLED_OUT)


def fast(pattern: str) -> str:
    """Return a pattern with the same matches that takes time in proportion to the text."""
    return _FASTER.get(canonical(pattern), pattern)
