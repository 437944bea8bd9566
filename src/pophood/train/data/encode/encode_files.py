"""Encodes files: a stream of documents as token ids, in order, in memory bounded by a few pieces of text.

    files -> pieces of text, records -> jobs -> (threads) token ids -> store

A long text is encoded in pieces. They are cut between a word and the space after it, which no word pattern of
a byte-level vocabulary crosses, so that the ids are those of the whole text. (A SentencePiece vocabulary may
have a token across a cut: the text is the same, but the ids there may differ.)
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pophood.errors import PophoodError
from pophood.system import default_threads
from pophood.text.chat.thoughts import thought_tags
from pophood.text.vocabulary import any_of
from pophood.train.data.encode.encode import EncodedText, ItemEncoder
from pophood.train.data.read.files import DataFile
from pophood.train.data.read.json_records import Record
from pophood.train.data.read.layouts import Item, WrongRecord, items_of, prompt_of, unused_fields
from pophood.train.data.read.lines import read_segments

STRETCH = 1 << 16  # characters of a long text to encode at once
GROUP = 32  # records per job
_WORDS = re.compile(r"[^\W\d_](?= [^\W\d_])")


class ItemJob(NamedTuple):
    """An item to encode, with the line of its record; `group` is 0 if its prompt decides the group."""

    line: int
    item: Item
    group: int


class EncodedDocument(NamedTuple):
    """The ids of a document, or of a part of a long text."""

    line: int
    encoded: EncodedText
    digest: int  # of its words, to find equal documents
    group: int  # documents of one group stay on one side of the split


@dataclass(slots=True)
class Job:
    """Work for one thread, a part of a text or some items; when it is done, also its result."""

    file: int  # its number
    line: int
    end: int  # bytes of the file up to here
    pieces: list[tuple[int, str]] = field(default_factory=list)  # line numbers and text
    opens: bool = False  # the part begins the text
    closes: bool = False  # and ends it
    digest: int = 0  # of the whole text, if the part ends it
    items: list[ItemJob] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)  # lines, and why they cannot be used
    good: int = 0  # lines, or records
    documents: list[EncodedDocument] = field(default_factory=list)  # the result
    typed: int = 0  # documents that spell out special tokens

    @property
    def text(self) -> str:
        """The part of the text."""
        return "".join(text for _, text in self.pieces)


class FileEncoder:
    """Encodes files as a stream of finished jobs, in the order of the files."""

    def __init__(self, files: Sequence[DataFile], encoder: ItemEncoder) -> None:
        self.files, self.encoder, self.options = files, encoder, encoder.options
        self.unused: Counter[str] = Counter()  # fields that nothing reads
        self.short = 0  # rows of tables that lack values in columns that are not read
        specials = encoder.tokenizer.specials
        self._specials = any_of(specials.values())
        # The tags of a thought are tokens in an answer, and need no warning there.
        self._not_thoughts = any_of(set(specials.values()) - set(thought_tags(specials).values()))

    def run(self) -> Iterator[Job]:
        """Yield every job when it is done. Only a few are in memory."""
        threads = min(default_threads(), 8)
        waiting: deque[Future[Job]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for job in self._jobs():
                    waiting.append(pool.submit(self._encode, job))
                    if len(waiting) > 2 * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _jobs(self) -> Iterator[Job]:
        for number, file in enumerate(self.files):
            yield from (self._text_jobs if file.container == "text" else self._record_jobs)(number, file)

    # Plain text.

    def _text_jobs(self, number: int, file: DataFile) -> Iterator[Job]:
        digest = hashlib.blake2b(digest_size=8)
        job = Job(number, 1, 0, opens=True)
        size = lines = 0
        bad = {0}
        for segment in read_segments(file.path):
            job.end = segment.end
            if segment.why:
                job.bad.append((segment.number, segment.why))
            else:
                job.pieces.append((segment.number, segment.text))
                size += len(segment.text)
            later = segment.text.count("\n") - segment.text.endswith("\n")
            lines = segment.number + max(0, later)
            bad.add(segment.number if segment.why else 0)
            while size >= 2 * STRETCH:
                job, rest = _cut(job)
                digest.update(essence(job.text))
                yield job
                job = Job(number, rest[0][0], segment.end, pieces=rest)
                size = sum(len(text) for _, text in rest)
        text = job.text
        digest.update(essence(text))
        job.digest, job.closes = int.from_bytes(digest.digest(), "little"), True
        job.good = lines - len(bad - {0})
        if job.opens and not text.strip():
            job = Job(number, 1, job.end, bad=job.bad)
        yield job

    # Records.

    def _record_jobs(self, number: int, file: DataFile) -> Iterator[Job]:
        job, size = Job(number, 1, 0), 0
        for record in file.records():
            why = record.why
            if why is None:
                try:
                    items = self._items(record, file)
                    job.items += items
                    size += sum(len(i.text or "") + sum(map(len, map(str, i.messages))) for _, i, _ in items)
                except WrongRecord as error:
                    why = record.short or str(error)
            if why:
                job.bad.append((record.line, why))
            job.end = record.end
            if len(job.items) + len(job.bad) >= GROUP or size > STRETCH:
                yield job
                job, size = Job(number, record.line, record.end), 0
        yield job

    def _items(self, record: Record, file: DataFile) -> list[ItemJob]:
        """Return the items of a record, and count the fields that nothing reads. Raises WrongRecord."""
        if file.container == "lines":
            return [ItemJob(record.line, Item(text=record.value), 0)]
        columns = self.options.columns
        items = items_of(record.value, file.layout, columns)
        self.unused.update(unused_fields(record.value, file.layout, columns, self.encoder.template.source))
        self.short += record.short is not None
        # All instances of a task stay on one side of the split.
        group = digest_of([str(record.value["instruction"])]) if file.layout == "tasks" else 0
        return [ItemJob(record.line, item, group) for item in items]

    # Encoding, in threads.

    def _encode(self, job: Job) -> Job:
        if not (job.pieces or job.closes):
            self._encode_items(job)
            return job
        text = job.text
        job.typed = int(not self.options.special and self._specials.search(text) is not None)
        try:
            encoded = self.encoder.text(text, opens=job.opens, closes=job.closes)
        except PophoodError:
            text, bad = self._without_bad_lines(job)
            job.bad += bad
            job.good -= len(bad)
            encoded = self.encoder.text(text, opens=job.opens, closes=job.closes)
        job.documents.append(EncodedDocument(1, encoded, job.digest, job.digest))
        return job

    def _without_bad_lines(self, job: Job) -> tuple[str, list[tuple[int, str]]]:
        """Return a job's text without the lines that the tokenizer refuses, and these with the reason."""
        good, bad = [], []
        for number, line in _numbered(job.pieces):
            try:
                self.encoder.tokenizer.encode(line, parse_special=self.options.special, add_start=False)
                good.append(line)
            except PophoodError as error:
                bad.append((number, str(error)))
        return "".join(good), bad

    def _encode_items(self, job: Job) -> None:
        failed: set[int] = set()
        for line, item, group in job.items:
            try:
                encoded = self.encoder.item(item)
            except (WrongRecord, PophoodError) as error:
                if line not in failed:
                    failed.add(line)
                    job.bad.append((line, str(error)))
                continue
            digest = digest_of([item.text] if item.text is not None else list(_words(item.messages)))
            prompt = prompt_of(item)
            group = group or (digest_of(prompt) if prompt else digest)
            job.documents.append(EncodedDocument(line, encoded, digest, group))
            job.typed += not self.options.special and self._spells_specials(item)
        job.documents = [document for document in job.documents if document.line not in failed]
        job.good = len({document.line for document in job.documents})
        job.bad.sort()

    def _spells_specials(self, item: Item) -> bool:
        """Return whether an item spells out special tokens, which are encoded as ordinary text."""
        if item.text is not None:
            return self._specials.search(item.text) is not None
        return any(
            (self._not_thoughts if message["role"] == "assistant" else self._specials).search(text)
            for message in item.messages
            for text in _words(message)
        )


def _numbered(pieces: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the lines of some pieces of text, with their numbers and line ends."""
    for first, text in pieces:
        yield from enumerate(re.findall(r"[^\n]*\n|[^\n]+", text), first)


def _cut(job: Job) -> tuple[Job, list[tuple[int, str]]]:
    """Shorten a job to its first STRETCH of text; also return the pieces that come after it."""
    cut = cut_point(job.text)
    before: list[tuple[int, str]] = []
    for place, (number, text) in enumerate(job.pieces):
        if len(text) > cut:
            before += [(number, text[:cut])] if cut else []
            rest = [(number + text.count("\n", 0, cut), text[cut:]), *job.pieces[place + 1 :]]
            job.pieces = before
            return job, rest
        before.append((number, text))
        cut -= len(text)
    raise AssertionError("a cut beyond the text")


def cut_point(text: str) -> int:
    """Return where to cut a long text, at most STRETCH: between words, else at a line, else anywhere.

    >>> cut_point("a b" + "c" * 100_000) in (1, STRETCH)
    True
    """
    low = STRETCH // 2
    for start in (STRETCH - 500, low):
        ends = [match.end() for match in _WORDS.finditer(text, start, STRETCH)]
        if ends:
            return ends[-1]
    at = text.rfind("\n", low, STRETCH)
    return at + 1 if at >= 0 else STRETCH


def essence(text: str) -> bytes:
    """Return a text without white space and case, as it is compared to find repetitions."""
    return "".join(text.split()).casefold().encode("utf-8", "replace")


def digest_of(texts: Sequence[str]) -> int:
    """Return a 64-bit hash of the essence of some texts."""
    hashed = hashlib.blake2b(digest_size=8)
    for text in texts:
        hashed.update(essence(text) + b"\0")
    return int.from_bytes(hashed.digest(), "little")


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item)
