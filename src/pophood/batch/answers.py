"""The file of answers: written in whole lines and in order, so that it is its own record of what is done.

    prompts.jsonl      answers.jsonl                               answers.jsonl.run
    line 1        ──►  {"line": 1, "hash": "5891b5b5", ...}        what the answers depend on (`facts.py`)
    line 2        ──►  {"line": 2, "hash": "b8a0fc79", ...}
    line 3             {"line": 3, "ha                             <- killed here: cut off by the next start

An answer is written by one call behind the last whole line, and synced within a second. After a kill, a power
cut or a full disk the whole lines are checked against the lines of the input that they answer, by number and
hash, and the rest of the input is computed. Nothing else has to be kept: seeds depend on a line's number.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from pophood.batch.custom_ids import CustomIds
from pophood.batch.facts import BatchFacts, check_same, place_of, read_facts, write_facts
from pophood.batch.lines import LineSource
from pophood.batch.shapes import failed
from pophood.errors import BadFile, BadInput
from pophood.system import disk_errors, file_lock, sync_file

SYNC_EVERY = 1.0  # seconds between two syncs while answers are written


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A whole line of the file of answers: the line of the input that it answers, and where it ends."""

    number: int
    digest: str
    failed: bool
    end: int
    custom_id: str | None  # of a line of OpenAI's


class AnswerFile:
    """An open file of answers, locked against other programs that would write it.

    `earlier` are the facts of the run that goes on; None if this is the first, or starts anew.

        with AnswerFile(Path("answers.jsonl")) as answers:
            answers.begin(model.facts(), source)
            answers.write({"line": 4, "hash": "...", ...})
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Nothing is changed yet, whatever `overwrite` says.

        Raises PophoodError if the file cannot be written, or another program writes it; BadInput if it has
        something else in it.
        """
        self.path = path
        self.done = self.failed = 0  # lines that `begin` found answered, and those of them with an error
        self.custom_ids = CustomIds()  # of those lines
        self._end = 0  # of the last whole line
        self._synced = time.monotonic()
        self._stack = ExitStack()
        try:
            self._stack.enter_context(file_lock(path, timeout=0))
            with disk_errors(path):
                self._file = self._stack.enter_context(path.open("ab", buffering=0))
            self.earlier = None if overwrite or not self._size else self._facts()
        except BaseException:
            self._stack.close()
            raise

    def _facts(self) -> BatchFacts:
        facts = read_facts(self.path)
        if facts is None:
            raise BadInput(
                f"{self.path}: is there, and {place_of(self.path).name} is not, so `pophood batch` did not "
                "write it: name another file, or replace it with --overwrite"
            )
        return facts

    @property
    def _size(self) -> int:
        return self.path.stat().st_size

    def begin(self, facts: BatchFacts, source: LineSource) -> None:
        """Begin a run, or go on: take the lines that are answered from the source, and cut a torn end off.

        Raises BadInput if the earlier run had other facts or another input, BadFile if a line in the middle
        is damaged; nothing is changed then.
        """
        if self.earlier is not None:
            check_same(self.path, self.earlier, facts)
            self._skip(source)
            self._cut(self._end)
            return
        self._cut(0)  # before the facts change: answers of other settings must not be taken for theirs
        write_facts(self.path, facts)  # which syncs the folder, with the new file in it

    def _cut(self, end: int) -> None:
        if end < self._size:
            with disk_errors(self.path):
                self._file.truncate(end)
                sync_file(self._file)

    def _skip(self, source: LineSource) -> None:
        """Take the lines of whole answers from the source, and compare them."""
        for kept in self._whole_answers():
            line = source.next()
            if line is None or (line.number, line.digest) != (kept.number, kept.digest):
                got = "has no such line" if line is None else "has another text there"
                raise BadInput(
                    f"{self.path}: answers line {kept.number:,}, and the input {got}: the input was changed "
                    "since; name another file for the answers, or start anew with --overwrite"
                )
            if kept.custom_id is not None:
                self.custom_ids.add(kept.custom_id, kept.number)
            self.done, self.failed, self._end = self.done + 1, self.failed + kept.failed, kept.end

    def _whole_answers(self) -> Iterator[KeptAnswer]:
        """Yield the whole lines from the start. Raises BadFile if whole ones follow a damaged one."""
        end, last = 0, 0
        with self.path.open("rb") as file:
            for data in file:
                kept = _kept(data, end)
                if kept is None or kept.number <= last:
                    # A power cut can leave a hole of NULs; any other damage that whole lines follow is a
                    # change by somebody, and cutting there could lose what they do not expect to lose.
                    if b"\0" not in data and any(_kept(later, 0) is not None for later in file):
                        raise BadFile(
                            f"{self.path}: the line after that of input line {last:,} is damaged, and whole "
                            "ones follow: delete from it on, or start anew with --overwrite"
                        )
                    return
                yield kept
                end, last = kept.end, kept.number

    def write(self, record: Mapping[str, Any]) -> None:
        """Add an answer. A full disk raises PophoodError, and the file ends with its last whole line."""
        data = encoded(record)
        with disk_errors(self.path, len(data)):
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                with suppress(OSError):  # the next start cuts it off otherwise
                    self._file.truncate(self._end)
                raise
        self._end += len(data)
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        with disk_errors(self.path):
            sync_file(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync, close, and let other programs write."""
        try:
            self.sync()
        finally:
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OSError, Exception):  # the error that is on its way says more
            self.close()


class AnswerStream:
    """Answers to stdout: nothing is kept, and nothing can be resumed."""

    custom_ids = earlier = None

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream or sys.stdout.buffer

    def write(self, record: Mapping[str, Any]) -> None:
        """Write an answer; whoever reads gets it at once."""
        self._stream.write(encoded(record))
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: stdout stays open."""


def encoded(record: Mapping[str, Any]) -> bytes:
    """Return an answer as a line of JSON, in ASCII, so that no line splitter finds a line end in a text.

    >>> encoded({"line": 1, "text": "é"})
    b'{"line": 1, "text": "\\\\u00e9"}\\n'
    """
    return json.dumps(record, allow_nan=False).encode("ascii") + b"\n"


def _kept(data: bytes, start: int) -> KeptAnswer | None:
    """Return what a line answers; None for one that is torn or no answer."""
    if not data.endswith(b"}\n"):
        return None
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    number, digest = record.get("line"), record.get("hash")
    if type(number) is not int or not isinstance(digest, str):
        return None
    custom_id = record.get("custom_id")
    return KeptAnswer(
        number, digest, failed(record), start + len(data), custom_id if isinstance(custom_id, str) else None
    )
