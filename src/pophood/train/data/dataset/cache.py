"""Ids that are kept between runs: found by what they were made from, made anew when anything differs.

The key is a hash of the files' bytes and names, of what a tokenizer does, of the template and of the options
that change ids. One process makes them, others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadFile, BadInput
from pophood.system import check_home, disk_errors, file_lock, home
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.dataset.data_report import MOST_LISTED, Progress
from pophood.train.data.dataset.store import Store, StoreWriter
from pophood.train.data.encode.encode import Encoded, ItemEncoder
from pophood.train.data.encode.encode_files import Done, Reader, learned_ends
from pophood.train.data.read.files import DataFile, content_hash
from pophood.train.data_options import DataOptions

VERSION = 3  # of what the ids are and how they lie; a change makes everything anew
_PROBES = (
    "The quick brown fox, it's 1234567 o'clock.\n\n\tDon't  stop\r\n ",
    "naïve Ünïcödé 東京 привет \U0001f44d\U0001f3fd e\u0301 \ufb01",
    "def f(x):\n    return x**2  # ...!?",
)


def keep(
    files: Sequence[DataFile],
    encoder: ItemEncoder,
    options: DataOptions,
    progress: Callable[[Progress], object] | None = None,
) -> tuple[Store, bool]:
    """The ids of these files, and whether they were there already.

    Raises BadFile when `strict` and a line is bad; PophoodError for a full disk, which leaves nothing behind.
    """
    if options.cache is None:
        check_home()
    folder = (options.cache or home() / "data") / _key(files, encoder, options)
    with file_lock(folder.with_suffix(".lock")):
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        cached = (folder / "facts.json").is_file()
        if not cached:
            _make(folder, files, encoder, options, progress)
    store = Store(folder)
    if options.strict and store.facts["bad_count"]:
        name, line, why = store.facts["bad"][0]
        raise _stopped(name, line, why)
    return store, cached


def fingerprint(tokenizer: Tokenizer) -> str:
    """A hash of what a tokenizer does: its tokens, special tokens, start tokens, and how it cuts a few
    texts."""
    hashed = hashlib.blake2b(digest_size=16)
    for id_ in range(tokenizer.vocab_size):
        hashed.update(tokenizer.token_bytes(id_) + b"\0")
    facts: list[Any] = [
        sorted(tokenizer.specials.items()),
        list(tokenizer.start_ids),
        sorted(tokenizer.stops),
        sorted(tokenizer.names.items()),
    ]
    for probe in _PROBES:
        try:
            facts.append(tokenizer.encode(probe))
        except BadInput as error:
            facts.append(str(error))
    hashed.update(json.dumps(facts).encode())
    return hashed.hexdigest()


def line_ends(tokenizer: Tokenizer) -> NDArray[np.uint8]:
    """How many line ends each token ends with, at most 2: `line_ends(gpt2)[198] == 1`."""
    pieces = (tokenizer.token_bytes(id_) for id_ in range(tokenizer.vocab_size))
    return np.array([piece.endswith(b"\n") + piece.endswith(b"\n\n") for piece in pieces], np.uint8)


def _key(files: Sequence[DataFile], encoder: ItemEncoder, options: DataOptions) -> str:
    facts = [
        VERSION,
        content_hash(files),
        [str(file.path) for file in files],
        fingerprint(encoder.tokenizer),
        encoder.template.source,
        sorted(options.columns.items()),
        options.completions_only,
        options.joined,
        options.special,
    ]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


class _Totals:
    """What is counted while reading."""

    def __init__(self) -> None:
        self.good = self.bad_count = 0
        self.bad: list[tuple[str, int, str]] = []
        self.end_added = self.double_start = self.typed = self.longest = 0
        self.unwritten: Counter[str] = Counter()  # conversations, by what the template leaves out of them


def _make(
    folder: Path,
    files: Sequence[DataFile],
    encoder: ItemEncoder,
    options: DataOptions,
    progress: Callable[[Progress], object] | None,
) -> None:
    sizes = [file.path.stat().st_size for file in files]
    done = 0

    def needed() -> int:
        """Bytes of the whole, by how far reading has come; three bytes of text per token before that is
        known."""
        width = 2 if encoder.tokenizer.vocab_size <= 1 << 16 else 4
        tokens = writer.tokens * sum(sizes) / done if done and writer.tokens else sum(sizes) / 3
        return int(tokens * (width + 1 / 8)) + 4096

    reader = Reader(files, encoder, options)
    writer = StoreWriter(folder, encoder.tokenizer.vocab_size, needed)
    totals = _Totals()
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with writer.open():
        document = _Document(writer)
        for part in reader.run():
            name = str(files[part.job.file].path)
            _count(totals, part, name, options.strict)
            for line, encoded, digest, group in part.documents:
                totals.end_added += encoded.end_added
                totals.double_start += encoded.double_start
                totals.unwritten.update(set(encoded.unwritten))
                whole = bool(part.job.items)
                document.add(encoded)
                if whole or part.job.closes:
                    size = document.close(part.job.file, line, digest, group, text=not _chat(files, part))
                    totals.longest = max(totals.longest, size)
            done = sum(sizes[: part.job.file]) + part.job.end
            if progress is not None:
                progress(Progress(done, sum(sizes), writer.documents, writer.tokens))
        facts = {
            "version": VERSION,
            "files": [str(file.path) for file in files],
            "unused": dict(reader.unused),
            "short": reader.short,
            "documents": writer.documents,
            **vars(totals),
        }
        writer.publish(facts)


def _chat(files: Sequence[DataFile], part: Done) -> bool:
    return files[part.job.file].layout not in ("text", "lines")


def _count(totals: _Totals, part: Done, name: str, strict: bool) -> None:
    totals.good += part.good
    totals.typed += part.typed
    totals.bad_count += len(part.bad)
    for line, why in part.bad:
        if strict:
            raise _stopped(name, line, why)
        if len(totals.bad) < MOST_LISTED:
            totals.bad.append((name, line, why))


def _stopped(name: str, line: int, why: str) -> BadFile:
    return BadFile(f"{name}:{line}: {why}: correct the line, or leave out --strict to skip such lines")


class _Document:
    """The document that is being written: where it started, and what of it is learned."""

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self._begin()

    def _begin(self) -> None:
        self._start = self._writer.tokens
        self._first, self._last, self._learned = -1, -1, 0

    def add(self, encoded: Encoded) -> None:
        """More of the document."""
        at = self._writer.tokens
        first, last = learned_ends(encoded)
        if last >= 0:
            self._first = at + first if self._first < 0 else self._first
            self._last = at + last
        self._learned += int(encoded.trained.sum())
        self._writer.append(encoded.ids, encoded.trained)

    def close(self, file: int, line: int, digest: int, group: int, *, text: bool) -> int:
        """The end of the document; returns its size in tokens."""
        start, end = self._start, self._writer.tokens
        self._writer.end_document(
            (start, end, self._first, self._last, self._learned, digest, group, file, line, text)
        )
        self._begin()
        return end - start
