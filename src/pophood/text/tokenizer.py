"""Tokenizer: text to ids and back, the same whichever files it was built from.

The text that comes back is the text that went in: no clean-up of spaces, whatever a file asks. Special tokens
are hidden in text unless asked for, and what a user types is none of them unless `parse_special` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pophood.errors import BadInput
from pophood.plaintext import without_mark
from pophood.text.vocabulary import Vocabulary


class Encoder(Protocol):
    """What turns text into ids: `library.LibraryEncoder` or `score_merges.ScoreEncoder`."""

    def encode(self, text: str) -> list[int]: ...

    def encode_special(self, text: str) -> list[int]: ...

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]: ...


class Tokenizer:
    """One model's tokenizer. `load_tokenizer_folder("gpt2").encode(" Madrid") == [14708]`."""

    def __init__(
        self,
        encoder: Encoder,
        vocabulary: Vocabulary,
        *,
        start_ids: tuple[int, ...] = (),
        stops: Mapping[int, str] | None = None,
        drops_first_space: bool = False,
        names: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = tuple(notes)  # what a user should know of how the files were read, a line each
        self._encoder = encoder
        self._vocabulary = vocabulary
        self.start_ids = start_ids
        self.stops: Mapping[int, str] = {} if stops is None else stops
        self.drops_first_space = drops_first_space
        self.names: Mapping[str, str] = (
            {} if names is None else names
        )  # "bos_token" -> its text, and so on, for chat templates

    @property
    def vocab_size(self) -> int:
        """The highest id plus one; the model's matrices may have more rows."""
        return self._vocabulary.size

    @property
    def specials(self) -> dict[int, str]:
        """Id -> text of the control tokens, which are hidden in text."""
        return self._vocabulary.specials

    def encode(self, text: str, *, parse_special: bool = False, add_start: bool = True) -> list[int]:
        """Ids of a text, after the model's start tokens; BadInput for half characters (lone surrogates).

        Example: `tokenizer.encode("<|endoftext|>", parse_special=True) == [50256]` for GPT-2.
        """
        check_whole(text)
        ids = self._encoder.encode_special(text) if parse_special else self._encoder.encode(text)
        return [*self.start_ids, *ids] if add_start and self.start_ids else ids

    def encode_bytes(
        self,
        data: bytes,
        *,
        replace_invalid: bool = False,
        parse_special: bool = False,
        add_start: bool = True,
    ) -> tuple[list[int], int]:
        """Ids of UTF-8 text given as bytes, and how many invalid sequences U+FFFD has replaced.

        A byte order mark at the start is no text. Without `replace_invalid` the first invalid byte is a
        BadInput that gives its offset; UTF-16 and UTF-32 are refused in any case.
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
        return self.encode(text, parse_special=parse_special, add_start=add_start), replaced

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of one text, some of whose special tokens are given as ids; no start tokens are added.

        Example: `tokenizer.encode_parts([1, "user\\nHi", 2])`. Text parts are ordinary text.
        """
        for part in parts:
            if isinstance(part, str):
                check_whole(part)
            elif part not in self.specials:
                raise BadInput(f"id {part} is not a special token of this vocabulary")
        return self._encoder.encode_parts(parts)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ids; `special` shows special tokens; bytes of no whole character become U+FFFD."""
        data = b"".join(map(self.token_bytes, self._visible(ids, special)))
        return self.without_first_space(data).decode("utf-8", "replace")

    def token_bytes(self, id_: int) -> bytes:
        """The bytes of one token, its leading space kept; b"" for an id without a token."""
        return self._vocabulary.piece(id_)

    def token_text(self, id_: int) -> str:
        r"""One token for people: " Madrid", "<|im_end|>", "\xE2" for a part of a character, "[50300]"."""
        return self._vocabulary.display(id_)

    def id_of(self, token_text: str) -> int | None:
        """The id of the token with exactly this text, as `token_text` writes it; None without one."""
        return self._vocabulary.find(token_text)

    def without_first_space(self, data: bytes) -> bytes:
        """The start of a text without the space that `encode` put there, for vocabularies that do so."""
        return data[1:] if self.drops_first_space and data[:1] == b" " else data

    def _visible(self, ids: Iterable[int], special: bool) -> Iterable[int]:
        return ids if special else (id_ for id_ in ids if id_ not in self._vocabulary.specials)


def check_whole(text: str) -> None:
    """BadInput for a str with half a surrogate pair, which no bytes can stand for."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"the text has half a character (U+{ord(text[error.start]):04X}) at character {error.start:,}:"
            " read it as UTF-8 again"
        ) from error


def load_tokenizer_folder(path: str | Path) -> Tokenizer:
    """The tokenizer in a model's folder, in the way of `folder.load_folder`."""
    from pophood.text.hf.folder import load_folder

    return load_folder(Path(path))


def load_tokenizer_gguf(metadata: Mapping[str, object]) -> Tokenizer:
    """The tokenizer in a GGUF file's metadata, in the way of `gguf_vocabulary.load_gguf`."""
    from pophood.text.gguf.gguf_vocabulary import load_gguf

    return load_gguf(metadata)
