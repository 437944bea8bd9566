"""TextStream: ids in, one at a time; text out, whole characters only.

A token may end in the middle of a character (an emoji is four bytes, often of two tokens or more). Its
bytes wait here until the character is complete, so that nothing is shown that the next token would change.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Set

from pophood.text.tokenizer import Tokenizer


class TextStream:
    """`"".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids)`, for any ids.

    With `continues` the ids go on from an earlier text, and the first one keeps its leading space (which
    SentencePiece-style vocabularies drop at the start of a text). Special tokens are left out unless
    `special` asks for all of them, or `shown` for these ids.
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
        """The characters that this token completes, perhaps none."""
        if id_ in self._hidden:
            return ""
        data = self._tokenizer.token_bytes(id_)
        if self._at_start and data:
            data = self._tokenizer.without_first_space(data)
            self._at_start = False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left of an unfinished character, as U+FFFD; the stream can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
