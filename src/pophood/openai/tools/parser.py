"""CallParser: the text of an answer, as it arrives, into content and calls.

    text ─► content ─► a mark ─► block (held back) ─┬─► calls
                          ▲                         └─► no call after all: content, byte for byte
                          └── what follows the mark is read again

What it makes of a text does not depend on the pieces in which the text arrives. White space beside calls
belongs to neither. A call of a function that the request does not have is content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pophood.openai.tools.blocks import BLOCKS, Block, BlockStep
from pophood.openai.tools.formats import CallFormat
from pophood.openai.tools.json_reader import SPACE

_BETWEEN = re.compile(rf"[{SPACE}]*(?:;[{SPACE}]*)?")


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A part of call number `number` of an answer: its name comes first, the text of its arguments then."""

    number: int
    name: str | None = None
    arguments: str = ""


Piece = str | CallPiece  # content, or a part of a call


@dataclass(frozen=True, slots=True)
class CallReading:
    """How the calls in an answer are read.

    `names` are the functions that can be called, `most` calls at most (None: any number). `certain` says that
    a grammar forces the format: the arguments are then passed on while they are written.
    """

    form: CallFormat
    names: frozenset[str]
    certain: bool = False
    most: int | None = None

    def parser(self) -> CallParser:
        """Return a parser for one answer."""
        return CallParser(self)


class CallParser:
    """Reads one answer. `calls` is the number of calls that were found."""

    def __init__(self, reading: CallReading) -> None:
        self._reading = reading
        self._anchored = reading.form.style == "bare"  # calls are at the beginning, or after other calls
        self.calls = 0
        self._held = ""  # text that a mark may begin in, with the white space before it
        self._raw = ""  # the white space and the mark that opened the block
        self._block: Block | None = None
        self._taken: list[str] = []  # what the block has read
        self._told: list[int] = []  # characters of the arguments of each of its calls that were passed on
        self._after_call = False
        self._over = False  # no call can follow

    def push(self, text: str) -> list[Piece]:
        """Take new text; return what is known of it, in order."""
        pieces: list[Piece] = []
        self._consume(text, pieces)
        if self._reading.certain and self._block is not None:
            self._tell(self._block, pieces)
        return _joined(pieces)

    def close(self) -> list[Piece]:
        """Take the end of the answer; return the rest."""
        pieces: list[Piece] = []
        while self._block is not None:
            if self._block.close() and self._fits(self._block):
                self._finish(self._block, pieces)
            else:
                self._consume(self._failed("", pieces), pieces)
        if not (self._after_call and not self._held.strip(SPACE)):
            self._content(self._held, pieces)
        self._held = ""
        return _joined(pieces)

    def _consume(self, queue: str, pieces: list[Piece]) -> None:
        while queue:
            queue = self._read(self._block, queue, pieces) if self._block else self._search(queue, pieces)

    # ---- content ----

    def _content(self, text: str, pieces: list[Piece]) -> None:
        if text:
            pieces.append(text)
            self._after_call = False

    def _search(self, queue: str, pieces: list[Piece]) -> str:
        """Look for a mark; return the text after it, which a block then reads."""
        self._held += queue
        if self._over:
            self._content(self._held, pieces)
            self._held = ""
            return ""
        return self._search_start(pieces) if self._anchored else self._search_mark(pieces)

    def _search_mark(self, pieces: list[Piece]) -> str:
        held, mark = self._held, self._reading.form.opens
        at = held.find(mark)
        if at >= 0:
            kept = held[:at].rstrip(SPACE)
            self._content(kept, pieces)
            return self._begin(held[len(kept) : at + len(mark)], held[at + len(mark) :])
        part = next((n for n in range(len(mark) - 1, 0, -1) if held.endswith(mark[:n])), 0)
        kept = held[: len(held) - part].rstrip(SPACE)
        self._content(kept, pieces)
        self._held = held[len(kept) :]
        return ""

    def _search_start(self, pieces: list[Piece]) -> str:
        held, mark = self._held, self._reading.form.opens
        between = _BETWEEN.match(held) if self.calls else re.match(rf"[{SPACE}]*", held)
        assert between is not None
        rest = held[between.end() :]
        if rest.startswith("{"):
            return self._begin(between[0], rest)
        if rest.startswith(mark):
            return self._begin(between[0] + mark, rest[len(mark) :])
        if not mark.startswith(rest):
            self._over = True
            self._content(held, pieces)
            self._held = ""
        return ""

    # ---- calls ----

    def _begin(self, raw: str, rest: str) -> str:
        reading = self._reading
        self._held, self._raw, self._taken, self._told = "", raw, [], []
        self._block = BLOCKS[reading.form.style](reading.form, reading.names)
        return rest

    def _read(self, block: Block, queue: str, pieces: list[Piece]) -> str:
        for at, char in enumerate(queue):
            step = block.push(char)
            if step is BlockStep.MORE:
                self._taken.append(char)
                continue
            before = step is BlockStep.DONE_BEFORE
            if step is BlockStep.FAILED or not self._fits(block):
                if self._reading.certain:
                    self._tell(block, pieces)
                return self._failed(queue[at:], pieces)
            self._finish(block, pieces)
            return queue[at if before else at + 1 :]
        return ""

    def _fits(self, block: Block) -> bool:
        most = self._reading.most
        return most is None or self.calls + len(block.calls) <= most

    def _failed(self, queue: str, pieces: list[Piece]) -> str:
        """Give up a block that is none; return the text that is to be read again."""
        taken, self._block = "".join(self._taken), None
        if self._told:  # a forced call that was cut
            self.calls += len(self._told)
            return queue
        self._content(self._raw, pieces)
        if self._anchored:
            self._over = True
        return taken + queue

    def _finish(self, block: Block, pieces: list[Piece]) -> None:
        self._tell(block, pieces)
        self.calls += len(block.calls)
        self._block, self._after_call = None, True

    def _tell(self, block: Block, pieces: list[Piece]) -> None:
        """Pass on what is new of the calls of a block."""
        for place, call in enumerate(block.calls):
            arguments = call.arguments
            if call.name is None or arguments is None:
                return
            number = self.calls + place
            if place == len(self._told):
                pieces.append(CallPiece(number, call.name))
                self._told.append(0)
            if new := arguments[self._told[place] :]:
                pieces.append(CallPiece(number, None, new))
                self._told[place] = len(arguments)


def read_answer(reading: CallReading, text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the content of a whole answer, and its calls: names, and texts of arguments."""
    parser = reading.parser()
    pieces = parser.push(text) + parser.close()
    return text_of(pieces), calls_of(pieces)


def text_of(pieces: Iterable[Piece]) -> str:
    """Return the content among some pieces."""
    return "".join(piece for piece in pieces if isinstance(piece, str))


def calls_of(pieces: Iterable[Piece]) -> list[tuple[str, str]]:
    """Return the calls among the pieces of an answer: names, and texts of arguments."""
    calls: list[tuple[str, list[str]]] = []
    for piece in pieces:
        if isinstance(piece, str):
            continue
        if piece.name is not None:
            calls.append((piece.name, []))
        calls[-1][1].append(piece.arguments)
    return [(name, "".join(arguments)) for name, arguments in calls]


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Join neighbouring texts."""
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(last := joined[-1], str):
            joined[-1] = last + piece
        else:
            joined.append(piece)
    return joined
