"""Tokenizers from GGUF metadata, with llama.cpp's meaning of the keys `tokenizer.ggml.*`.

Two kinds are built: `gpt2` (byte-level BPE; the key `pre` names the way words are cut) and `llama`
(SentencePiece-style, merged by score). Everything else is refused by name, a missing `pre` too: llama.cpp
would guess there, and say that quality suffers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pophood.errors import BadFile, Unsupported
from pophood.text.patterns import WORD_CUTS
from pophood.text.score_merges import ScoreEncoder
from pophood.text.stages import Decoding
from pophood.text.stops import Stops, add_conventional_ends, add_stop
from pophood.text.tokenizer import Encoder, Tokenizer
from pophood.text.tokenizer_json import Merges, Parts, build_encoder
from pophood.text.vocabulary import BYTE_TOKEN, Vocabulary

# tokenizer.ggml.token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_PREFIX = "tokenizer.ggml."
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_NAME_KEYS = {
    "bos_token_id": "bos_token",
    "eos_token_id": "eos_token",
    "unknown_token_id": "unk_token",
    "padding_token_id": "pad_token",
}
_SPM_DEFAULTS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}


def load_gguf(metadata: Mapping[str, object]) -> Tokenizer:
    """The tokenizer of a GGUF file, from its metadata.

    Example: `load_gguf(open_gguf("model.gguf").metadata).encode("Hi")`. BadFile, Unsupported.
    """
    keys = _Keys(metadata)
    kind = keys.text("model")
    if kind is None:
        raise BadFile("the GGUF file has no tokenizer.ggml.model, so no tokenizer")
    if kind not in ("gpt2", "llama"):
        raise Unsupported(f"the GGUF tokenizer {kind[:60]!r} is not understood; 'gpt2' and 'llama' are")
    tokens = keys.texts("tokens")
    if "" in tokens:
        tokens = [token or f"[EMPTY_{id_}]" for id_, token in enumerate(tokens)]  # llama.cpp's name for them
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        twice = next(token for id_, token in enumerate(tokens) if ids[token] != id_)
        raise BadFile(f"the GGUF file lists the token {twice[:60]!r} twice")
    types = keys.integers("token_type", len(tokens))
    named = {key: keys.id(key, len(tokens)) for key in {*_END_KEYS, *_NAME_KEYS}}
    if kind == "llama":
        for key, default in _SPM_DEFAULTS.items():
            if named[key] is None and default < len(tokens):
                named[key] = default
        encoder, vocabulary, add_start, add_space = _score_parts(keys, tokens, ids, types)
    else:
        encoder, vocabulary, add_start, add_space = _byte_parts(keys, tokens, ids, types, named)
    stops: dict[int, str] = {}
    for key in _END_KEYS:
        id_ = named[key]
        if id_ is not None:
            add_stop(stops, id_, _PREFIX + key)
    add_conventional_ends(stops, vocabulary.specials)
    names = {name: tokens[id_] for key, name in _NAME_KEYS.items() if (id_ := named[key]) is not None}
    return Tokenizer(
        encoder,
        vocabulary,
        start_ids=_start_ids(keys.flag("add_bos_token", add_start), named["bos_token_id"]),
        stops=Stops(stops, vocabulary.specials, _template_ends(metadata, vocabulary, names)),
        drops_first_space=add_space,
        names=names,
    )


def _start_ids(wanted: bool, start: int | None) -> tuple[int, ...]:
    if not wanted:
        return ()
    if start is None:
        raise BadFile(
            "the GGUF file wants a start token (add_bos_token) and has no tokenizer.ggml.bos_token_id"
        )
    return (start,)


def _template_ends(metadata: Mapping[str, object], vocabulary: Vocabulary, names: Mapping[str, str]) -> Any:
    from pophood.text.chat import load_template_gguf

    template = load_template_gguf(metadata, names)
    return None if template is None else lambda: template.end_ids(vocabulary.specials)


def _byte_parts(
    keys: _Keys, tokens: list[str], ids: dict[str, int], types: list[int], named: Mapping[str, int | None]
) -> tuple[Encoder, Vocabulary, bool, bool]:
    from pophood.text.library import AddedToken

    pre = keys.text("pre")
    cut = WORD_CUTS.get(pre or "")
    if cut is None:
        raise Unsupported(
            f"tokenizer.ggml.pre is {(pre or 'missing')[:60]!r}: that way to cut words is unknown"
            f" (known: {', '.join(WORD_CUTS)})"
        )
    added = tuple(
        AddedToken(token, special=kind != USER_DEFINED)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    )
    parts = Parts(
        vocab=ids,
        merges=_merges(keys.texts("merges")),
        options={"ignore_merges": cut.ignore_merges},
        normalizer=None,
        pre_tokenizer=cut.pre_tokenizer,
        decoding=Decoding("bytes", byte_tokens=False, drops_first_space=False),
        added=added,
    )
    encoder, vocabulary = build_encoder(parts, [tokens[id_] for id_ in named.values() if id_ is not None])
    return encoder, vocabulary, cut.add_start, False


def _merges(lines: list[str]) -> Merges:
    """Pairs of tokens, in order of rank; of a pair that is listed twice the first counts, as in llama.cpp."""
    lines = list(dict.fromkeys(lines))
    fields = " \n ".join(lines).split(" ") if lines else []
    if len(fields) != max(3 * len(lines) - 1, 0) or fields[2::3].count("\n") != max(len(lines) - 1, 0):
        bad = next(line for line in lines if line.count(" ") != 1 or "\n" in line)
        raise BadFile(f"the merge {bad[:60]!r} of the GGUF file is not two tokens with a space between")
    return list(zip(fields[0::3], fields[1::3], strict=True))


def _score_parts(
    keys: _Keys, tokens: list[str], ids: dict[str, int], types: list[int]
) -> tuple[Encoder, Vocabulary, bool, bool]:
    scores = keys.numbers("scores", len(tokens))
    byte_ids: dict[int, int] = {}
    specials, literals, text = dict[str, int](), dict[str, int](), dict[str, int]()
    for token, kind in zip(tokens, types, strict=True):
        id_ = ids[token]
        if kind in (CONTROL, UNKNOWN):
            specials[token] = id_
        elif kind == BYTE:
            byte = BYTE_TOKEN.fullmatch(token)
            if byte is None:
                raise BadFile(f"the byte token {token[:60]!r} of the GGUF file is not written as <0xE2>")
            byte_ids[int(byte[1], 16)] = id_
        else:
            text[token] = id_
            if kind == USER_DEFINED:
                literals[token] = id_
    add_space = keys.flag("add_space_prefix", True)
    encoder = ScoreEncoder(
        text, scores, specials=specials, literals=literals, byte_ids=byte_ids, add_space=add_space
    )
    vocabulary = Vocabulary(ids, "spaces", specials=specials, literals=literals, byte_tokens=bool(byte_ids))
    return encoder, vocabulary, True, add_space


class _Keys:
    """The keys `tokenizer.ggml.*`, each with the type it must have."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata

    def _get(self, key: str) -> object:
        return self._metadata.get(_PREFIX + key)

    def text(self, key: str) -> str | None:
        value = self._get(key)
        if value is not None and not isinstance(value, str):
            raise BadFile(f"{_PREFIX}{key} of the GGUF file is {type(value).__name__}, not text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key)
        if value is not None and not isinstance(value, bool):
            raise BadFile(f"{_PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not true or false")
        return default if value is None else value

    def id(self, key: str, size: int) -> int | None:
        value = self._get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise BadFile(f"{_PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not an id")
        # llama.cpp drops an id without a token; 2^32 - 1 is how converters write "none"
        return value if 0 <= value < size else None

    def texts(self, key: str) -> list[str]:
        value = self._list(key)
        if not set(map(type, value)) <= {str}:
            raise BadFile(f"{_PREFIX}{key} of the GGUF file is not a list of texts")
        return value

    def integers(self, key: str, size: int) -> list[int]:
        value = self._list(key, size)
        if not set(map(type, value)) <= {int}:
            raise BadFile(f"{_PREFIX}{key} of the GGUF file is not a list of whole numbers")
        return value

    def numbers(self, key: str, size: int) -> list[float]:
        value = self._list(key, size)
        if not set(map(type, value)) <= {int, float} or not all(map(math.isfinite, value)):
            raise BadFile(f"{_PREFIX}{key} of the GGUF file is not a list of finite numbers")
        return value

    def _list(self, key: str, size: int | None = None) -> list[Any]:
        value = self._get(key)
        if value is None:
            raise BadFile(f"the GGUF file has no {_PREFIX}{key}")
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list):
            raise BadFile(f"{_PREFIX}{key} of the GGUF file is {type(value).__name__}, not a list")
        if size is not None and len(items) < size:
            raise BadFile(f"{_PREFIX}{key} of the GGUF file has {len(items):,} entries for {size:,} tokens")
        return items if size is None else items[:size]
