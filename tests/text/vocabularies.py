"""Small vocabularies that the tests train, as tokenizer.json, as GGUF metadata, and in llama.cpp.

The training text is prose with every fragment of `texts.py`, so that merges cover many scripts.
"""

from __future__ import annotations

import functools
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pophood.text.vocabulary import byte_characters, spell
from tests.text.texts import CUT_CHARACTERS, FRAGMENTS, PROSE
from tests.tiny_vocabulary import SPLITS

CORPUS = [
    PROSE,
    " ".join(text for text in FRAGMENTS if "qz" not in text) * 8,
    "Ünïcödé ναι да はい 네 " * 20,
    "   \n\n\t\t  x  \n" * 40,
]
GGUF_CONTROL, GGUF_USER, GGUF_BYTE, GGUF_UNKNOWN = 3, 4, 6, 2

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_TOKENS = ("<tool_call>", "    ")  # cut out of any text, and shown


@dataclass(frozen=True, slots=True)
class Trained:
    """Tokens in order of id, as the file spells them; merges in order of rank; the type of each in GGUF."""

    tokens: tuple[str, ...]
    merges: tuple[str, ...]
    types: tuple[int, ...]


@functools.cache
def pairs() -> Trained:
    """Build a vocabulary with all pairs of `CUT_CHARACTERS`, so that every split of a text has other ids.

    No trainer makes one: it never sees pairs across its own splits.
    """
    merges: dict[str, None] = {}
    characters = [spell(character.encode()) for character in CUT_CHARACTERS]
    for character in characters:
        for end in range(1, len(character)):
            merges[f"{character[:end]} {character[end]}"] = None
    both = [f"{one} {other}" for one in characters for other in characters]
    random.Random(0).shuffle(both)
    merges |= dict.fromkeys(both)
    plain = [*byte_characters(), *dict.fromkeys(merge.replace(" ", "") for merge in merges)]
    plain = list(dict.fromkeys(plain))
    types = [1] * len(plain) + [GGUF_CONTROL] * len(SPECIALS) + [GGUF_USER] * len(USER_TOKENS)
    return Trained((*plain, *SPECIALS, *USER_TOKENS), tuple(merges), tuple(types))


def pairs_metadata(pre: str | None) -> dict[str, Any]:
    """Return GGUF metadata of `pairs` for a pre-tokenizer; None leaves the key out."""
    return gguf_metadata(pairs(), pre)


def pre_tokenizer(pre: str) -> Any:
    """Build the pre-tokenizer of a GGUF name, or one in JSON, with the library itself."""
    from tokenizers import Regex, pre_tokenizers

    if pre.startswith("{"):
        from tokenizers import Tokenizer, models

        document = json.loads(Tokenizer(models.BPE()).to_str()) | {"pre_tokenizer": json.loads(pre)}
        return Tokenizer.from_str(json.dumps(document)).pre_tokenizer
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated")
    return pre_tokenizers.Sequence([split, bytes_only])


@functools.cache
def trained(pre: str, size: int = 1_500) -> Trained:
    """Train a byte-level vocabulary with special and user-defined tokens, and two words without merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    plain = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    plain += ["Ġqzqzq", "qzqz"]  # whole words, which only `ignore_merges` produces
    extra = [*SPECIALS, *USER_TOKENS]
    types = [1] * len(plain) + [GGUF_CONTROL] * len(SPECIALS) + [GGUF_USER] * len(USER_TOKENS)
    return Trained((*plain, *extra), tuple(" ".join(pair) for pair in model["merges"]), tuple(types))


def library_tokenizer(pre: str, *, ignore_merges: bool = False) -> Any:
    """Return the trained vocabulary as a tokenizer of the library."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    made = trained(pre)
    ids = {token: id_ for id_, token in enumerate(made.tokens)}
    plain = {token: id_ for token, id_ in ids.items() if token not in (*SPECIALS, *USER_TOKENS)}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in made.merges)]
    tokenizer = Tokenizer(models.BPE(plain, pairs, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in USER_TOKENS])
    return tokenizer


@functools.cache
def trained_pieces(size: int = 1_500) -> tuple[tuple[str, ...], tuple[float, ...], tuple[int, ...]]:
    """Return a SentencePiece-style vocabulary: tokens, scores, types. Some scores are equal, on purpose."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.train_from_iterator(
        # Without NUL, up to which llama.cpp reads a token; and without "<", or else it would merge the text
        # "<0x41>" to the byte token of "A" (ours does not, see test_score_merges.py).
        [line for text in CORPUS for line in re.sub(r"[<\0]", "", text).split("\n")],
        trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=300),
    )
    model = json.loads(tokenizer.to_str())["model"]
    rank = {"".join(pair): float(-index // 2) for index, pair in enumerate(model["merges"])}
    words = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *words,
        *SPECIALS,
        "<tool>",
    ]
    types = [GGUF_UNKNOWN, GGUF_CONTROL, GGUF_CONTROL] + [GGUF_BYTE] * 256 + [1] * len(words)
    types += [GGUF_CONTROL] * len(SPECIALS) + [GGUF_USER]
    scores = [0.0] * 259 + [rank.get(word, -1e4) for word in words] + [0.0] * len(SPECIALS) + [-1000.0]
    return tuple(tokens), tuple(scores), tuple(types)


def byte_level_metadata(pre: str, **keys: Any) -> dict[str, Any]:
    """Return GGUF metadata of the trained vocabulary for a pre-tokenizer, with `keys` added."""
    base = {"starcoder": "smollm", "llama3": "llama-bpe"}.get(pre, pre)
    made = trained(base if base in (*SPLITS, "smollm") else keys.pop("cut"))
    keys.pop("cut", None)
    return gguf_metadata(made, pre) | keys


def gguf_metadata(made: Trained, pre: str | None) -> dict[str, Any]:
    """Write a byte-level vocabulary as GGUF keys; None for `pre` leaves that key out."""
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        **({} if pre is None else {"tokenizer.ggml.pre": pre}),
        "tokenizer.ggml.tokens": list(made.tokens),
        "tokenizer.ggml.token_type": list(made.types),
        "tokenizer.ggml.merges": list(made.merges),
        "tokenizer.ggml.bos_token_id": made.tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": made.tokens.index("<|im_end|>"),
    }


def pieces_metadata(**keys: Any) -> dict[str, Any]:
    """Return GGUF metadata of the SentencePiece-style vocabulary, with `keys` added."""
    tokens, scores, types = trained_pieces()
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": list(types),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **keys,
    }


def folder_of(path: Path, reference: Any, **files: Any) -> Path:
    """Write a folder with the library's tokenizer.json, and settings files named by keyword."""
    path.mkdir(exist_ok=True)
    reference.save(str(path / "tokenizer.json"))
    for stem, content in files.items():
        (path / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def write_gguf(path: Path, metadata: dict[str, Any]) -> Path:
    """Write a GGUF file without tensors with the `gguf` package."""
    gguf = pytest.importorskip("gguf", reason="needs Python package: gguf")
    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key == "general.architecture":
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class LlamaCpp:
    """llama.cpp's tokenizer on one GGUF file."""

    def __init__(self, path: Path) -> None:
        llama_cpp = pytest.importorskip("llama_cpp", reason="needs Python package: llama-cpp-python")
        self._model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)

    def encode(self, text: str, *, parse_special: bool = False, add_start: bool = False) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self._model.tokenize(text.encode(), add_bos=add_start, special=parse_special)
        return ids

    def close(self) -> None:
        self._model.close()
