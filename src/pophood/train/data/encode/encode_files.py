"""Files to encoded documents, in order, in memory bounded by a few stretches of text: the stream behind the
store.

    files -> stretches of text, records -> jobs -> (threads) ids -> what `store.py` writes

A long text is encoded in stretches that are cut between a word and the space after it, which no word pattern
of a byte-level vocabulary crosses: the ids are those of the whole text. (Where a SentencePiece vocabulary has
tokens across words, the text is the same and a token at a cut may be another one.)
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pophood.errors import PophoodError
from pophood.system import default_threads
from pophood.text.chat.thoughts import thought_tags
from pophood.text.vocabulary import any_of
from pophood.train.data.encode.encode import Encoded, ItemEncoder
from pophood.train.data.read.files import DataFile
from pophood.train.data.read.layouts import Item, WrongRecord, items_of, prompt_of, unused_fields
from pophood.train.data.read.lines import read_lines, read_segments
from pophood.train.data_options import DataOptions

STRETCH = 1 << 16  # characters of a long text that are encoded together
GROUP = 32  # records of one job
_WORDS = re.compile(r"[^\W\d_](?= [^\W\d_])")


@dataclass(slots=True)
class Job:
    """Work for one thread: a stretch of text, or some items. `place`: file, line, and bytes read up to
    here."""

    file: int
    line: int
    end: int
    pieces: list[tuple[int, str]] = field(default_factory=list)  # line numbers and text
    opens: bool = False
    closes: bool = False
    digest: int = 0  # of the whole text, when it closes
    items: list[tuple[int, Item, int]] = field(default_factory=list)  # line, item, group
    bad: list[tuple[int, str]] = field(default_factory=list)  # lines found bad before
    good: int = 0  # lines of text

    @property
    def text(self) -> str:
        """The stretch of text."""
        return "".join(text for _, text in self.pieces)


@dataclass(slots=True)
class Done:
    """What became of a job: per document its line, ids, digest and group; and the lines that were bad."""

    job: Job
    documents: list[tuple[int, Encoded, int, int]]
    bad: list[tuple[int, str]]
    good: int
    typed: int = 0  # documents that spell special tokens


class Reader:
    """Files as a stream of finished jobs, in the order of the files."""

    def __init__(self, files: Sequence[DataFile], encoder: ItemEncoder, options: DataOptions) -> None:
        self.files, self.encoder, self.options = files, encoder, options
        self.unused: Counter[str] = Counter()
        self.short = 0  # rows of tables without some values that nobody reads
        specials = encoder.tokenizer.specials
        self._specials = any_of(specials.values())
        # The tags of a thought are tokens in an answer, and need no warning there.
        self._not_thoughts = any_of(set(specials.values()) - set(thought_tags(specials).values()))

    def run(self) -> Iterator[Done]:
        """Every job in turn; at most a few are in memory."""
        threads = min(default_threads(), 8)
        waiting: deque[Future[Done]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for job in self._jobs():
                    waiting.append(pool.submit(self._encode, job))
                    if len(waiting) > 2 * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _jobs(self) -> Iterator[Job]:
        for number, file in enumerate(self.files):
            if file.container == "text":
                yield from self._text_jobs(number, file)
            else:
                yield from self._grouped(number, self._items(file))

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
            lines = max(
                segment.number, segment.number + segment.text.count("\n") - segment.text.endswith("\n")
            )
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

    def _items(self, file: DataFile) -> Iterator[tuple[int, int, list[Item], int, str | None]]:
        """Line, bytes, items, group and trouble of every record."""
        if file.container == "lines":
            for line in read_lines(file.path):
                if line.why or line.text.strip():
                    items = [] if line.why else [Item(text=line.text)]
                    yield line.number, line.end, items, 0, line.why
            return
        columns, template = self.options.columns, self.encoder.template.source
        for raw in file.records():
            items = []
            why, group = raw.why, 0
            if why is None:
                try:
                    items = list(items_of(raw.value, file.layout, columns))
                    self.unused.update(unused_fields(raw.value, file.layout, columns, template))
                    self.short += raw.short is not None
                    if file.layout == "tasks":  # all instances of an instruction stay on one side
                        group = digest_of([str(raw.value["instruction"])])
                except WrongRecord as error:
                    why = raw.short or str(error)
            yield raw.line, raw.end, items, group, why

    def _grouped(
        self, number: int, records: Iterator[tuple[int, int, list[Item], int, str | None]]
    ) -> Iterator[Job]:
        job = Job(number, 1, 0)
        size = 0
        for line, end, items, group, why in records:
            if why:
                job.bad.append((line, why))
            for item in items:
                job.items.append((line, item, group))
                size += len(item.text or "") + sum(len(str(message)) for message in item.messages)
            job.end = end
            if len(job.items) + len(job.bad) >= GROUP or size > STRETCH:
                yield job
                job, size = Job(number, line, end), 0
        yield job

    # Encoding, in threads.

    def _encode(self, job: Job) -> Done:
        if not (job.pieces or job.closes):
            return self._encode_items(job)
        bad, good, text = list(job.bad), job.good, job.text
        typed = int(not self.options.special and self._specials.search(text) is not None)
        try:
            encoded = self.encoder.text(text, opens=job.opens, closes=job.closes)
        except PophoodError:
            text, lost = self._without_bad_lines(job)
            bad += lost
            good -= len(lost)
            encoded = self.encoder.text(text, opens=job.opens, closes=job.closes)
        return Done(job, [(1, encoded, job.digest, job.digest)], bad, good, typed)

    def _without_bad_lines(self, job: Job) -> tuple[str, list[tuple[int, str]]]:
        """A stretch without the lines that the tokenizer refuses."""
        kept, lost = [], []
        for number, line in _numbered(job.pieces):
            try:
                self.encoder.tokenizer.encode(line, parse_special=self.options.special, add_start=False)
                kept.append(line)
            except PophoodError as error:
                lost.append((number, str(error)))
        return "".join(kept), lost

    def _encode_items(self, job: Job) -> Done:
        done = Done(job, [], list(job.bad), 0)
        documents: dict[int, list[tuple[int, Encoded, int, int]]] = {}
        failed: set[int] = set()
        for line, item, group in job.items:
            texts = [item.text] if item.text is not None else list(_words(item.messages))
            try:
                encoded = self.encoder.item(item)
            except (WrongRecord, PophoodError) as error:
                if line not in failed:
                    failed.add(line)
                    done.bad.append((line, str(error)))
                continue
            digest, prompt = digest_of(texts), prompt_of(item)
            group = group or (digest_of(prompt) if prompt else digest)
            documents.setdefault(line, []).append((line, encoded, digest, group))
            done.typed += not self.options.special and self._spells_specials(item)
        for line, some in documents.items():
            if line not in failed:
                done.documents += some
                done.good += 1
        done.bad.sort()
        return done

    def _spells_specials(self, item: Item) -> bool:
        """Whether an item has special tokens in letters, which are taken as ordinary text."""
        if item.text is not None:
            return self._specials.search(item.text) is not None
        return any(
            (self._not_thoughts if message["role"] == "assistant" else self._specials).search(text)
            for message in item.messages
            for text in _words(message)
        )


def _numbered(pieces: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The lines of some stretches of text, with their ends and numbers."""
    for first, text in pieces:
        yield from enumerate(re.findall(r"[^\n]*\n|[^\n]+", text), first)


def _cut(job: Job) -> tuple[Job, list[tuple[int, str]]]:
    """A job with its first stretch of text, and the pieces that come after it."""
    cut = cut_point(job.text)
    kept: list[tuple[int, str]] = []
    for place, (number, text) in enumerate(job.pieces):
        if len(text) > cut:
            kept += [(number, text[:cut])] if cut else []
            rest = [(number + text.count("\n", 0, cut), text[cut:]), *job.pieces[place + 1 :]]
            job.pieces = kept
            return job, rest
        kept.append((number, text))
        cut -= len(text)
    raise AssertionError("a cut beyond the text")


def cut_point(text: str) -> int:
    """Where to cut a long text after about STRETCH characters: between words, else at a line, else anywhere.

    >>> cut_point("a b" + "c" * 100_000) in (1, STRETCH)
    True
    """
    low = STRETCH // 2
    for start in (STRETCH - 500, low):
        found = [match.end() for match in _WORDS.finditer(text, start, STRETCH)]
        if found:
            return found[-1]
    at = text.rfind("\n", low, STRETCH)
    return at + 1 if at >= 0 else STRETCH


def essence(text: str) -> bytes:
    """What is compared to find repetitions: the text without white space and case."""
    return "".join(text.split()).casefold().encode("utf-8", "replace")


def digest_of(texts: Sequence[str]) -> int:
    """64 bits of the essence of some texts."""
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


def learned_ends(encoded: Encoded) -> tuple[int, int]:
    """The places of the first and the last learned id; (len, -1) without any.

    >>> learned_ends(Encoded(np.array([5, 6, 7]), np.array([False, True, True])))
    (1, 2)
    """
    places = np.flatnonzero(encoded.trained)
    return (int(places[0]), int(places[-1])) if len(places) else (len(encoded.ids), -1)
