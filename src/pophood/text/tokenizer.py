"""Tokenizer and TextStream: text to ids, and ids back to text, whichever files the tokenizer came from.

Decoding returns the text that was encoded: spaces are never cleaned up, whatever a file asks for. Special
tokens are hidden in decoded text unless asked for, and typed text never becomes one unless `parse_special`
says so. `load.py` builds tokenizers from a model's files.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

from pophood.errors import BadInput
from pophood.plaintext import without_mark
from pophood.text.vocabulary import Vocabulary


class Encoder(Protocol):
    """Turns text into ids: `hf_tokenizers.LibraryEncoder` or `score_merges.ScoreEncoder`."""

    def encode(self, text: str) -> list[int]: ...

    def encode_special(self, text: str) -> list[int]: ...

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]: ...


@dataclass(eq=False, repr=False)
class Tokenizer:
    """One model's tokenizer. Example: `lm.tokenizer.encode(" Madrid") == [14708]` for GPT-2.

    `stops` maps an end token's id to the file that names it (see `stop_tokens`). `names` maps "bos_token" and
    the like to the token's text, for chat templates. `notes` are sentences that a user should read about how
    the files were understood.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    _: KW_ONLY
    start_ids: tuple[int, ...] = ()
    stops: Mapping[int, str] = field(default_factory=dict)
    drops_first_space: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def vocab_size(self) -> int:
        """The highest id plus one; the model's matrices may have more rows."""
        return self.vocabulary.size

    @property
    def specials(self) -> dict[int, str]:
        """The control tokens, which are hidden in text: id -> text."""
        return self.vocabulary.specials

    def encode(self, text: str, *, parse_special: bool = False, add_start: bool = True) -> list[int]:
        """Return the ids of a text, after the model's start tokens; BadInput for a lone surrogate.

        Example: `tokenizer.encode("<|endoftext|>", parse_special=True) == [50256]` for GPT-2.
        """
        check_whole(text)
        ids = self.encoder.encode_special(text) if parse_special else self.encoder.encode(text)
        return [*self.start_ids, *ids] if add_start and self.start_ids else ids

    def encode_bytes(
        self,
        data: bytes,
        *,
        replace_invalid: bool = False,
        parse_special: bool = False,
    ) -> tuple[list[int], int]:
        """Return the ids of UTF-8 bytes, and how many invalid sequences were replaced by U+FFFD.

        A byte order mark at the start is dropped. Without `replace_invalid`, the first invalid byte is a
        BadInput that gives its offset. UTF-16 and UTF-32 are always refused.
        """
        replaced = 0
        data = without_mark(data, "the text")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            if not replace_invalid:
                raise BadInput(
                    f"the text is not UTF-8: byte 0x{data[error.start]:02X} at offset {error.start:,}"
                    f" ({error.reason}): convert it, or choose --replace-invalid"
                ) from error
            text = data.decode("utf-8", "replace")
            replaced = text.count("\ufffd") - data.count("\ufffd".encode())
        return self.encode(text, parse_special=parse_special), replaced

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Return the ids of one text in which special tokens are given by id; no start tokens are added.

        Text parts are ordinary text. Example: `tokenizer.encode_parts([1, "user\\nHi", 2])`.
        """
        for part in parts:
            if isinstance(part, str):
                check_whole(part)
            elif part not in self.specials:
                raise BadInput(f"id {part} is not a special token of this vocabulary")
        return self.encoder.encode_parts(parts)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Return the text of ids, with special tokens if `special`; incomplete characters become U+FFFD."""
        visible = ids if special else (id_ for id_ in ids if id_ not in self.specials)
        data = b"".join(map(self.token_bytes, visible))
        return self.without_first_space(data).decode("utf-8", "replace")

    def token_bytes(self, id_: int) -> bytes:
        """Return the bytes of one token, including a leading space; b"" for an id without a token."""
        return self.vocabulary.piece(id_)

    def token_text(self, id_: int) -> str:
        r"""Return one token for display: " Madrid", "<|im_end|>", "\xE2" for part of a character, "[503]"."""
        return self.vocabulary.display(id_)

    def id_of(self, token_text: str) -> int | None:
        """Return the id of the token with exactly this text, as `token_text` writes it, or None."""
        return self.vocabulary.find(token_text)

    def without_first_space(self, data: bytes) -> bytes:
        """Remove the space that `encode` put before a text, for vocabularies that add one."""
        return data[1:] if self.drops_first_space and data[:1] == b" " else data


class TextStream:
    """Decodes ids one at a time into whole characters.

    A token may end in the middle of a character (an emoji has four bytes, often in two tokens or more). Its
    bytes wait here until the character is complete, so nothing is shown that the next token would change. For
    any ids, `"".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids)`.

    With `continues`, the ids follow an earlier text, so the first one keeps its leading space (which
    SentencePiece-style vocabularies drop at the start of a text). Special tokens are left out, except all of
    them with `special`, or the ids in `shown`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        special: bool = False,
        *,
        continues: bool = False,
        shown: Collection[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._hidden: Set[int] = frozenset() if special else tokenizer.specials.keys() - shown
        self._at_start = not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id_: int) -> str:
        """Return the characters that this token completes, which may be none."""
        if id_ in self._hidden:
            return ""
        data = self._tokenizer.token_bytes(id_)
        if self._at_start and data:
            data = self._tokenizer.without_first_space(data)
            self._at_start = False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """Return the rest of an unfinished character as U+FFFD; the stream can then be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def check_whole(text: str) -> None:
    """Raise BadInput for a str with a lone surrogate, which cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"the text has half a character (U+{ord(text[error.start]):04X}) at character {error.start:,}:"
            " read it as UTF-8 again"
        ) from error
