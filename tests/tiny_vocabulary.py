"""Byte-level BPE vocabularies of any size for random models: the first merges of GPT-2.

A prefix of a list of merges is a valid list of merges, so nothing has to be trained and nothing is random.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

MERGES = Path(__file__).parent / "data" / "gpt2" / "vocab.bpe"

# The published pre-tokenizers (tokenizer.json of GPT-2, Llama 3 and Qwen2).
SPLITS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>"
    "\n\n{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Style:
    """The tokenizer of one family: its pre-tokenizer, special tokens and normalizer."""

    pre: str
    specials: tuple[str, ...]
    start: str | None  # prepended to every text
    end: str
    template: str | None


STYLES = {
    "gpt2": Style("gpt-2", ("<|endoftext|>",), None, "<|endoftext|>", None),
    "llama": Style(
        "llama-bpe",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|end_of_text|>",
        LLAMA3,
    ),
    "qwen": Style("qwen2", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|im_end|>", CHATML),
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens in order of their ids (as byte symbols), merges in order of rank, and the special tokens."""

    style: Style
    tokens: tuple[str, ...]
    merges: tuple[str, ...]

    @property
    def ids(self) -> dict[str, int]:
        """Ids by token."""
        return {token: i for i, token in enumerate(self.tokens)}


@functools.cache
def vocabulary(style: str, size: int) -> Vocabulary:
    """Return at most `size` tokens: 256 bytes, the first merges of GPT-2 that fit, then the special tokens.

    `vocabulary("gpt2", 50257)` is GPT-2's own.
    """
    chosen = STYLES[style]
    lines = MERGES.read_text(encoding="utf-8").splitlines()[1:]
    merges = [line for line in lines if line][: size - 256 - len(chosen.specials)]
    tokens = [*byte_symbols(), *(merge.replace(" ", "") for merge in merges), *chosen.specials]
    return Vocabulary(chosen, tuple(tokens), tuple(merges))


def byte_symbols() -> list[str]:
    """Return the 256 characters that stand for bytes, in the order of GPT-2's ids (bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


@functools.cache
def tokenizer_json(style: str, size: int) -> str:
    """Return the vocabulary as a `tokenizer.json`, written by the tokenizers library."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    words = vocabulary(style, size)
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in words.merges)]
    plain = words.tokens[: len(words.tokens) - len(words.style.specials)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(plain)}, pairs))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in words.style.specials])
    split = pre_tokenizers.Split(Regex(SPLITS[words.style.pre]), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if words.style.start is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{words.style.start} $A",
            special_tokens=[(words.style.start, words.ids[words.style.start])],
        )
    return str(tokenizer.to_str())


def write_tokenizer(folder: Path, style: str, size: int) -> None:
    """Write a tokenizer as the family publishes it: GPT-2 as a pair of files, others as tokenizer.json."""
    words = vocabulary(style, size)
    if style == "gpt2":
        (folder / "vocab.json").write_text(json.dumps(words.ids, ensure_ascii=False), encoding="utf-8")
        merges = "\n".join(("#version: 0.2", *words.merges)) + "\n"
        (folder / "merges.txt").write_text(merges, encoding="utf-8")
    else:
        (folder / "tokenizer.json").write_text(tokenizer_json(style, size), encoding="utf-8")
    config = {
        "tokenizer_class": "GPT2Tokenizer" if style == "gpt2" else "PreTrainedTokenizerFast",
        "eos_token": words.style.end,
        "clean_up_tokenization_spaces": True,
    }
    if words.style.start is not None:
        config["bos_token"] = words.style.start
    if words.style.template is not None:
        config["chat_template"] = words.style.template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
