"""The on-disk cache of tokenised data, keyed by a hash of files, tokenizer, template and options.

Only options that change token ids count. One process writes an entry while others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadFile, BadInput
from pophood.system import check_home, disk_errors, file_lock, home
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.dataset.data_report import MOST_LISTED, DataProgress, OnProgress
from pophood.train.data.dataset.store import Store, StoreWriter
from pophood.train.data.encode.encode import ItemEncoder
from pophood.train.data.encode.encode_files import FileEncoder, Job
from pophood.train.data.read.files import DataFile, content_hash

VERSION = 3  # of the ids and the store's format; a change invalidates the cache
_PROBES = (
    "The quick brown fox, it's 1234567 o'clock.\n\n\tDon't  stop\r\n ",
    "naïve Ünïcödé 東京 привет \U0001f44d\U0001f3fd e\u0301 \ufb01",
    "def f(x):\n    return x**2  # ...!?",
)


def cached_store(
    files: Sequence[DataFile], encoder: ItemEncoder, progress: OnProgress = None
) -> tuple[Store, bool]:
    """Return the store with the ids of some files, and whether it was in the cache.

    Raises BadFile if a line is bad and `strict` is on, PophoodError for a full disk, which leaves nothing
    behind.
    """
    options = encoder.options
    if options.cache is None:
        check_home()
    folder = (options.cache or home() / "data") / _key(files, encoder)
    with file_lock(folder.with_suffix(".lock")):
        for partial in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(partial, ignore_errors=True)
        cached = (folder / "facts.json").is_file()
        if not cached:
            _write(folder, files, encoder, progress)
    store = Store(folder)
    if options.strict and store.facts["bad_count"]:
        name, line, why = store.facts["bad"][0]
        raise _bad_line(name, line, why)
    return store, cached


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return a hash of a tokenizer's behaviour: its tokens, special tokens, and how it splits a few texts."""
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
    """Return the number of line ends at the end of each token, at most 2: `line_ends(gpt2)[198] == 1`."""
    pieces = (tokenizer.token_bytes(id_) for id_ in range(tokenizer.vocab_size))
    return np.array([piece.endswith(b"\n") + piece.endswith(b"\n\n") for piece in pieces], np.uint8)


def _key(files: Sequence[DataFile], encoder: ItemEncoder) -> str:
    options = encoder.options
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
    """Counts of the whole data; they become facts of the store."""

    def __init__(self) -> None:
        self.good = self.bad_count = 0
        self.bad: list[tuple[str, int, str]] = []
        self.end_added = self.double_start = self.typed = self.longest = 0
        self.unwritten: Counter[str] = Counter()  # conversations, by the part that the template leaves out

    def add(self, job: Job, name: str, strict: bool) -> None:
        """Count a finished job. Raises BadFile for a bad line if `strict`."""
        self.good += job.good
        self.typed += job.typed
        self.bad_count += len(job.bad)
        for line, why in job.bad:
            if strict:
                raise _bad_line(name, line, why)
            if len(self.bad) < MOST_LISTED:
                self.bad.append((name, line, why))
        for document in job.documents:
            self.end_added += document.encoded.end_added
            self.double_start += document.encoded.double_start
            self.unwritten.update(set(document.encoded.unwritten))


def _write(folder: Path, files: Sequence[DataFile], encoder: ItemEncoder, progress: OnProgress) -> None:
    """Encode the files and write the store."""
    sizes = [file.path.stat().st_size for file in files]
    done = 0

    def needed() -> int:
        """Estimate the bytes of the whole store; before any progress, with three bytes of text per token."""
        width = 2 if encoder.tokenizer.vocab_size <= 1 << 16 else 4
        tokens = writer.tokens * sum(sizes) / done if done and writer.tokens else sum(sizes) / 3
        return int(tokens * (width + 1 / 8)) + 4096

    encoded_files = FileEncoder(files, encoder)
    writer = StoreWriter(folder, encoder.tokenizer.vocab_size, needed)
    totals = _Totals()
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with writer.open():
        for job in encoded_files.run():
            file = files[job.file]
            totals.add(job, str(file.path), encoder.options.strict)
            for line, encoded, digest, group in job.documents:
                writer.append(encoded.ids, encoded.trained)
                if job.items or job.closes:
                    text = file.layout in ("text", "lines")
                    size = writer.end_document(job.file, line, digest, group, text=text)
                    totals.longest = max(totals.longest, size)
            done = sum(sizes[: job.file]) + job.end
            if progress is not None:
                progress(DataProgress(done, sum(sizes), writer.documents, writer.tokens))
        facts = {
            "version": VERSION,
            "files": [str(file.path) for file in files],
            "unused": dict(encoded_files.unused),
            "short": encoded_files.short,
            "documents": writer.documents,
            **vars(totals),
        }
        writer.publish(facts)


def _bad_line(name: str, line: int, why: str) -> BadFile:
    return BadFile(f"{name}:{line}: {why}: correct the line, or leave out --strict to skip bad lines")
