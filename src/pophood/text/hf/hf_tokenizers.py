"""LibraryEncoder: text to ids through the `tokenizers` library, without the features that a file could abuse.

By default the library turns special tokens into ids wherever they are typed; here ordinary text is encoded
with `encode_special_tokens` set, so that they stay text. Truncation and padding are never set. A panic inside
the library is a BaseException; it leaves here as one typed error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pophood.errors import BadFile, BadInput
from pophood.text.hf.bpe import BpeTables, library_errors
from pophood.text.vocabulary import byte_characters, spell

if TYPE_CHECKING:
    import tokenizers

LONG_TEXT = 20_000  # characters; beyond this, the offsets that `encode` also computes cost more than the ids
# What may be encoded with models of single texts before the whole model is built, which costs as much.
FEW_CHARACTERS, CHARACTERS_OF_CALL = 4_000, 200
NEVER_IN_UTF8 = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is cut out of the text before anything else (special ones only on request).

    The fields are those of the library's class of that name.
    """

    content: str
    special: bool
    lstrip: bool = False  # swallows the white space on its left
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


def missing_bytes(vocab: Mapping[str, int]) -> bytes:
    """Return the bytes of UTF-8 text for which a byte-level vocabulary has no token (SmolLM2's lacks 8)."""
    characters = byte_characters()
    return bytes(byte for byte in range(256) if byte not in NEVER_IN_UTF8 and characters[byte] not in vocab)


@dataclass(eq=False, repr=False)
class LibraryEncoder:
    """A BPE model of the library with its normalizer and pre-tokenizer, as tokenizer.json writes them.

    `ids` has all tokens, added ones too; `lost` are bytes without a token; `unknown` is unk_token's id. With
    `spells_bytes`, words are pieces of the text's bytes in GPT-2's alphabet, and nothing else. The first
    short texts then take a model of their own tokens, instead of waiting for the whole one.
    """

    tables: BpeTables
    _: KW_ONLY
    normalizer: object
    pre_tokenizer: object
    added: Sequence[AddedToken]
    ids: Mapping[str, int]
    lost: bytes = b""
    unknown: int | None = None
    spells_bytes: bool = False

    def __post_init__(self) -> None:
        stages = {"normalizer": self.normalizer, "pre_tokenizer": self.pre_tokenizer}
        model = {"type": "BPE", "vocab": {}, "merges": []}  # a placeholder
        self._stages = json.dumps({"version": "1.0", **stages, "model": model})
        self._special_ids = {self.ids[token.content] for token in self.added if token.special} - {
            self.unknown
        }
        self._few = FEW_CHARACTERS if self.spells_bytes else 0
        self._assemble(self._part("") or self.tables.whole, self.added)  # raises for parts that do not fit

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text; a special token typed in it is read as plain letters."""
        self._check_bytes(text)
        part = self._part(text)
        ids = self._run(self._plain if part is None else self._assemble_plain(part), text)
        self._check_specials(ids)
        return ids

    def encode_special(self, text: str) -> list[int]:
        """Return the ids of text in which special tokens are recognised."""
        self._check_bytes(text)
        part = self._part(text)
        return self._run(self._parsing if part is None else self._assemble(part, self.added), text)

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Return the ids of one text in which special tokens are given by id; the rest is ordinary text."""
        written = "".join(part for part in parts if isinstance(part, str))
        self._check_bytes(written)
        text = "".join(part if isinstance(part, str) else self._marks[part] for part in parts)
        part = self._part(written)
        tokenizer = self._marked if part is None else self._assemble_marked(part)
        meaning = {tokenizer.token_to_id(mark): id_ for id_, mark in self._marks.items()}
        ids = self._run(tokenizer, text)
        self._check_specials(ids)
        return [meaning.get(id_, id_) for id_ in ids]

    def _part(self, text: str) -> Any | None:
        """Return a model of this text's tokens while only a few characters were encoded, else None."""
        self._few -= len(text) + CHARACTERS_OF_CALL
        if self._few < 0 or not self.spells_bytes:
            return None
        more = {token.content: self.ids[token.content] for token in self.added}
        # The library would number the marks from the length of this small vocabulary.
        more |= {mark: len(self.tables.vocab) + id_ for id_, mark in self._marks.items()}
        return self.tables.part(spell(text.encode()), more)

    def _assemble(
        self, model: Any, added: Sequence[AddedToken], expected: bool = True
    ) -> tokenizers.Tokenizer:
        from tokenizers import AddedToken as LibraryToken
        from tokenizers import Tokenizer

        with library_errors(BadFile, "the tokenizer's parts cannot be built"):
            tokenizer = Tokenizer.from_str(self._stages)
            tokenizer.model = model
            tokenizer.add_tokens([LibraryToken(**asdict(token)) for token in added])
        for token in added if expected else ():
            id_ = self.ids[token.content]
            if tokenizer.token_to_id(token.content) != id_:
                raise BadFile(f"the added token {token.content[:40]!r} cannot have id {id_}")
        return tokenizer

    def _assemble_plain(self, model: Any) -> tokenizers.Tokenizer:
        tokenizer = self._assemble(model, self.added)
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _assemble_marked(self, model: Any) -> tokenizers.Tokenizer:
        """Build a tokenizer that knows the special tokens only by secret names, so no text can spell them."""
        special = {self.ids[token.content]: token for token in self.added if token.special}
        renamed = [AddedToken(self._marks[id_], False, t.lstrip, t.rstrip) for id_, t in special.items()]
        ordinary = [token for token in self.added if not token.special]
        return self._assemble(model, [*ordinary, *renamed], expected=False)

    @cached_property
    def _marks(self) -> dict[int, str]:
        secret = os.urandom(8).hex()
        ids = (self.ids[token.content] for token in self.added if token.special)
        return {id_: f"\U0010fff0{secret}.{id_}\U0010fff1" for id_ in ids}

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        return self._assemble_plain(self.tables.whole)

    @cached_property
    def _parsing(self) -> tokenizers.Tokenizer:
        return self._assemble(self.tables.whole, self.added)

    @cached_property
    def _marked(self) -> tokenizers.Tokenizer:
        return self._assemble_marked(self.tables.whole)

    def _run(self, tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
        with library_errors(BadInput, "the tokenizer cannot take this text (a run of millions of spaces?)"):
            if len(text) < LONG_TEXT:
                return tokenizer.encode(text, add_special_tokens=False).ids
            return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def _check_bytes(self, text: str) -> None:
        if not self.lost:
            return
        data = text.encode()
        if len(data.translate(None, self.lost)) != len(data):
            offset = next(i for i, byte in enumerate(data) if byte in self.lost)
            raise BadInput(
                f"the vocabulary has no token for the byte 0x{data[offset]:02X} (offset {offset:,}):"
                " take that character out of the text"
            )

    def _check_specials(self, ids: list[int]) -> None:
        if not self._special_ids.isdisjoint(ids):
            special = next(id_ for id_ in ids if id_ in self._special_ids)
            raise BadInput(
                f"this tokenizer would turn ordinary text into its special token {special}:"
                " allow special tokens (--parse-special), or change the text"
            )
