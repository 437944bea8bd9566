"""Tokenizers from GGUF metadata, with llama.cpp's meaning of the keys `tokenizer.ggml.*`.

Two kinds are read: `gpt2` (byte-level BPE; the key `pre` names the pre-tokenizer) and `llama`
(SentencePiece-style, merged by score). Other kinds are refused by name. A key that is optional for llama.cpp
is optional here too; where its absence can cost quality, a note says so.

Three things differ from llama.cpp (0.3.36 of llama-cpp-python), where following it would do harm. Without the
keys that name them, it starts and ends texts of `gpt2` vocabularies with token 11, a comma in most of them.
It skips a merge that is not two tokens, although that means a damaged list. It refuses a file with an unknown
`pre`; here such a file is split in the default way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pophood.errors import BadFile, Unsupported
from pophood.text.gguf.pretokenizers import CUT_BY_NAME, CUTS, DEFAULT, ELSEWHERE, WordCut
from pophood.text.hf.bpe import MergeLines
from pophood.text.hf.hf_tokenizers import AddedToken
from pophood.text.hf.tokenizer_json import Merges, Parts, build_encoder
from pophood.text.score_merges import ScoreEncoder
from pophood.text.stop_tokens import END_NAMES, Stops, TemplateEnds, add_conventional_ends, add_stop
from pophood.text.tokenizer import Encoder, Tokenizer
from pophood.text.vocabulary import BYTE_TOKEN, Vocabulary

PREFIX = "tokenizer.ggml."
# tokenizer.ggml.token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_NAME_KEYS = {
    "bos_token_id": "bos_token",
    "eos_token_id": "eos_token",
    "unknown_token_id": "unk_token",
    "padding_token_id": "pad_token",
}
_SPM_DEFAULTS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
# How control tokens are usually written, for files that do not mark them.
_CONTROL_LOOK = re.compile(r"<[|\uff5c].+[|\uff5c]>|</?[a-z_]+>|\[/?[A-Z_]+\]")

NO_TYPES = (
    "the GGUF file does not say which tokens are control tokens (tokenizer.ggml.token_type): those that look"
    " like one, such as <|x|>, are taken for one"
)
NO_SCORES = (
    "the GGUF file has no tokenizer.ggml.scores: text is merged from the left, as in llama.cpp, and answers"
    " may be worse than the model's; a newer conversion of the model does better"
)
NO_START = (
    "the GGUF file asks for a start token but does not name one (tokenizer.ggml.bos_token_id): texts begin"
    " without one"
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys `tokenizer.ggml.*` of one file, without that prefix; a value of the wrong type is a BadFile.

    Example: `Keys(metadata).text("model") == "gpt2"`.
    """

    metadata: Mapping[str, object]

    def text(self, key: str) -> str | None:
        """Return a text, or None without the key."""
        value = self._get(key)
        if value is not None and not isinstance(value, str):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {type(value).__name__}, not text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean, or `default` without the key."""
        value = self._get(key)
        if value is not None and not isinstance(value, bool):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not true or false")
        return default if value is None else value

    def id(self, key: str, size: int) -> int | None:
        """Return a token's id; None without the key, or for an id that no token has."""
        value = self._get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {str(value)[:60]!r}, not an id")
        # llama.cpp drops an id without a token too; converters write 2^32 - 1 for "none"
        return value if 0 <= value < size else None

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; BadFile without the key."""
        texts = self._list(key, {str}, "texts")
        if texts is None:
            raise BadFile(f"the GGUF file has no {PREFIX}{key}: take another conversion of the model")
        return texts

    def integers(self, key: str, size: int) -> list[int] | None:
        """Return `size` whole numbers, or None without the key."""
        return self._list(key, {int}, "whole numbers", size)

    def numbers(self, key: str, size: int) -> list[float] | None:
        """Return `size` finite numbers, or None without the key."""
        return self._list(key, {int, float}, "finite numbers", size)

    def _get(self, key: str) -> object:
        return self.metadata.get(PREFIX + key)

    def _list(self, key: str, types: set[type], what: str, size: int | None = None) -> list[Any] | None:
        value = self._get(key)
        if value is None:
            return None
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is {type(value).__name__}, not a list")
        if size is not None and len(items) < size:
            raise BadFile(f"{PREFIX}{key} of the GGUF file has {len(items):,} entries for {size:,} tokens")
        items = items[:size]
        given = set(map(type, items))
        if not given <= types or (float in given and not all(map(math.isfinite, items))):
            raise BadFile(f"{PREFIX}{key} of the GGUF file is not a list of {what}")
        return items


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """The tokens of a GGUF file, with the gaps that it leaves filled in; all lists are indexed by id."""

    kind: str  # "gpt2" or "llama"
    tokens: list[str]
    ids: dict[str, int]  # of every token
    types: list[int]
    named: dict[str, int | None]  # "bos_token_id" -> id, and so on
    merges: Merges  # only "gpt2", in order of rank
    cut: WordCut | None  # only "gpt2"
    scores: list[float]  # only "llama"
    notes: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """The named tokens, for chat templates: "bos_token" -> text, and so on."""
        ids = {name: self.named[key] for key, name in _NAME_KEYS.items()}
        return {name: self.tokens[id_] for name, id_ in ids.items() if id_ is not None}


def load_gguf(
    metadata: Mapping[str, object], words: GgufVocabulary, *, template_ends: TemplateEnds | None = None
) -> Tokenizer:
    """Build the tokenizer of a GGUF file from its metadata and the vocabulary that was read from it.

    `template_ends` finds the tokens with which the chat template ends a turn. Raises BadFile, Unsupported.
    """
    keys, named = Keys(metadata), words.named
    if words.cut is None:
        add_start, add_space = True, keys.flag("add_space_prefix", True)
        encoder, vocabulary = _score_parts(words, add_space)
    else:
        add_start, add_space = words.cut.add_start, False
        encoder, vocabulary = _byte_parts(words, words.cut)
    stops: dict[int, str] = {}
    for key in _END_KEYS:
        id_ = named[key]
        if id_ is not None:
            add_stop(stops, id_, PREFIX + key)
    add_conventional_ends(stops, vocabulary.specials)
    start = named["bos_token_id"]
    wanted = keys.flag("add_bos_token", add_start)
    return Tokenizer(
        encoder,
        vocabulary,
        start_ids=(start,) if wanted and start is not None else (),
        stops=Stops(stops, vocabulary.specials, template_ends),
        drops_first_space=add_space,
        names=words.names,
        notes=(*words.notes, NO_START) if wanted and start is None else words.notes,
    )


def read_vocabulary(metadata: Mapping[str, object]) -> GgufVocabulary:
    """Read and check the vocabulary in a GGUF file's metadata; raises BadFile, Unsupported."""
    keys = Keys(metadata)
    kind = keys.text("model")
    if kind is None:
        raise BadFile("the GGUF file has no tokenizer.ggml.model, and so no tokenizer")
    if kind not in ("gpt2", "llama"):
        raise Unsupported(f"the GGUF tokenizer {kind[:60]!r} is not understood; 'gpt2' and 'llama' are")
    tokens = keys.texts("tokens")
    if "" in tokens:
        tokens = [token or f"[EMPTY_{id_}]" for id_, token in enumerate(tokens)]  # llama.cpp's name for them
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        twice = next(token for id_, token in enumerate(tokens) if ids[token] != id_)
        raise BadFile(f"the GGUF file lists the token {twice[:60]!r} twice")
    named = {key: keys.id(key, len(tokens)) for key in {*_END_KEYS, *_NAME_KEYS}}
    notes: list[str] = []
    merges: Merges = ()
    scores: list[float] = []
    cut: WordCut | None = None
    if kind == "gpt2":
        cut = word_cut(keys.text("pre"), notes)
        lines = MergeLines(keys.texts("merges"))
        types, merges = _types(keys, ids, named, lines.makes, notes), lines
    else:
        for key, default in _SPM_DEFAULTS.items():
            if named[key] is None and default < len(tokens):
                named[key] = default
        stored = keys.numbers("scores", len(tokens))
        scores = [0.0] * len(tokens) if stored is None else stored
        notes += [NO_SCORES] if stored is None else []
        types = _types(keys, ids, named, lambda token: _is_union(token, ids), notes)
    return GgufVocabulary(kind, tokens, ids, types, named, merges, cut, scores, tuple(notes))


def word_cut(pre: str | None, notes: list[str]) -> WordCut:
    """Return the pre-tokenizer that `tokenizer.ggml.pre` names; Unsupported for one that is not here.

    A missing or unknown value means llama.cpp's default, and adds a line to `notes`.
    """
    known = CUT_BY_NAME.get(pre or "")
    if known is not None:
        return known
    if pre in ELSEWHERE:
        raise Unsupported(
            f"the GGUF file names the pre-tokenizer {pre!r}, which pophood does not have: take another model"
            f" (known: {', '.join(cut.names[0] for cut in CUTS)})"
        )
    problem = f"names an unknown pre-tokenizer ({pre[:60]!r})" if pre else "names no pre-tokenizer"
    notes.append(
        f"the GGUF file {problem} in tokenizer.ggml.pre: words are split in llama.cpp's default way, and"
        " answers may be worse than the model's; a newer conversion of the model does better"
    )
    return CUT_BY_NAME[DEFAULT]


def _types(
    keys: Keys,
    ids: Mapping[str, int],
    named: Mapping[str, int | None],
    is_merged: Callable[[str], bool],
    notes: list[str],
) -> list[int]:
    """Return the type of each token. As in llama.cpp, a token with the name of an end is a control token.

    Where a file gives no types, a token is a control token if a key names it, or if it looks like one
    (`<|x|>`) and no merge produces it. llama.cpp then takes all tokens but the ends for text.
    """
    tokens = list(ids)
    stored = keys.integers("token_type", len(tokens))
    control = END_NAMES
    types = [NORMAL] * len(tokens) if stored is None else stored
    if stored is None:
        notes.append(NO_TYPES)
        control |= {tokens[id_] for id_ in named.values() if id_ is not None}
        control |= {token for token in tokens if _CONTROL_LOOK.fullmatch(token)}
    for token in control & ids.keys():
        id_ = ids[token]
        if types[id_] in (NORMAL, USER_DEFINED) and not is_merged(token):
            types[id_] = CONTROL
    if keys.text("model") == "llama":
        _mark_bytes(tokens, types)
    return types


def _mark_bytes(tokens: list[str], types: list[int]) -> None:
    """Make `<0xE2>` a byte token where a file types it as text: llama.cpp goes by the name."""
    typed = {token for token, kind in zip(tokens, types, strict=True) if kind == BYTE}
    for id_, token in enumerate(tokens):
        if types[id_] == BYTE and BYTE_TOKEN.fullmatch(token) is None:
            raise BadFile(f"the byte token {token[:60]!r} of the GGUF file is not written as <0xE2>")
        if types[id_] == NORMAL and BYTE_TOKEN.fullmatch(token) and token.upper() not in typed:
            types[id_] = BYTE


def _is_union(token: str, ids: Mapping[str, int]) -> bool:
    """Return whether this token is two other tokens joined."""
    return any(token[:cut] in ids and token[cut:] in ids for cut in range(1, len(token)))


def _byte_parts(words: GgufVocabulary, cut: WordCut) -> tuple[Encoder, Vocabulary]:
    added = tuple(
        AddedToken(token, special=kind != USER_DEFINED)
        for token, kind in zip(words.tokens, words.types, strict=True)
        if kind != NORMAL and kind in (CONTROL, UNKNOWN, USER_DEFINED)
    )
    parts = Parts(
        vocab=words.ids,
        merges=words.merges,
        options={"ignore_merges": cut.ignore_merges},
        pre_tokenizer=cut.in_gguf,
        added=added,
    )
    return build_encoder(parts, [words.tokens[id_] for id_ in words.named.values() if id_ is not None])


def _score_parts(words: GgufVocabulary, add_space: bool) -> tuple[Encoder, Vocabulary]:
    byte_ids: dict[int, int] = {}
    specials, literals, text = dict[str, int](), dict[str, int](), dict[str, int]()
    for id_, (token, kind) in enumerate(zip(words.tokens, words.types, strict=True)):
        if kind in (CONTROL, UNKNOWN):
            specials[token] = id_
        elif kind == BYTE:
            byte_ids[int(token[3:5], 16)] = id_
        else:
            text[token] = id_
            if kind == USER_DEFINED:
                literals[token] = id_
    encoder = ScoreEncoder(
        text, words.scores, specials=specials, literals=literals, byte_ids=byte_ids, add_space=add_space
    )
    named = {"specials": specials, "literals": literals}
    return encoder, Vocabulary(words.ids, "spaces", **named, byte_tokens=bool(byte_ids))
