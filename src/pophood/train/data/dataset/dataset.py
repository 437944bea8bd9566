"""`open_data`: files to training and validation examples, with a report.

Documents are split by a hash of their contents. Equal documents and documents with the same prompt stay on
one side: a loss on answers to known questions would say nothing about new questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.dataset.cache import cached_store, line_ends
from pophood.train.data.dataset.data_report import BadLine, DataReport, OnProgress, with_remarks
from pophood.train.data.dataset.examples import Examples
from pophood.train.data.dataset.store import Store
from pophood.train.data.encode.encode import ItemEncoder
from pophood.train.data.read.files import CONTAINERS, FoundFiles, find_files
from pophood.train.settings import DataOptions

SEED = 42  # the default
FEW = 1000  # up to this many groups are chosen one by one, to meet the share closely
_MOST = 1.5  # times the goal: larger groups are not chosen, unless all are larger
LEAST_TOKENS = 64  # of a single document that is split into training and validation data


@dataclass(frozen=True, slots=True)
class Data:
    """Training and validation examples. `validation` is empty for a single short document."""

    train: Examples
    validation: Examples
    report: DataReport
    template: str | None  # the default chat template, if the data uses it: to be written with the model


class _Split(NamedTuple):
    train: Examples
    validation: Examples
    overlap: int  # training documents left out because the validation files contain them
    note: str


def open_data(
    paths: Sequence[str | PathLike[str]] | str | PathLike[str],
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    options: DataOptions | None = None,
    progress: OnProgress = None,
) -> Data:
    """Read files and folders. Their token ids are cached on disk, so that they are encoded only once.

    Raises NotFound, BadFile or BadInput; with `options.strict` BadFile for the first bad line.

        data = open_data("notes.jsonl", bundle.tokenizer, bundle.chat_template, DataOptions(length=256))
        data.train[0].ids, data.report.good
    """
    options = options or DataOptions()
    paths = [paths] if isinstance(paths, (str, PathLike)) else paths
    files = find_files([Path(path) for path in paths], options)
    chats = any(file.layout not in ("text", "lines") for file in files.files)
    if options.completions_only and not chats:
        raise BadInput("the data is plain text, which has no completions: leave out --completions-only")
    encoder = ItemEncoder(tokenizer, template, options)
    store, cached = cached_store(files.files, encoder, progress)
    split = _split(store, encoder, line_ends(tokenizer), progress)
    if len(split.train) == 0 and split.overlap:
        raise BadInput(
            f"there is nothing to train on: all {split.overlap:,} documents are in the validation files, too:"
            " use other validation files, or none to validate with a tenth of the data"
        )
    if len(split.train) == 0:
        first = f"; the first: {BadLine(*store.facts['bad'][0])}" if store.facts["bad"] else ""
        raise BadInput(
            f"the data has no document to train on: {store.facts['good']:,} good lines,"
            f" {store.facts['bad_count']:,} bad{first}"
        )
    report = _report(files, store, split, encoder, cached)
    used = encoder.template.source if template is None and chats and not options.joined else None
    return Data(split.train, split.validation, report, used)


def _split(store: Store, encoder: ItemEncoder, ends: NDArray[np.uint8], progress: OnProgress) -> _Split:
    """Return training and validation examples: by files, the end of a single document, or by hashes."""

    def examples(store: Store, rows: NDArray[Any], chosen: NDArray[np.int64] | None = None) -> Examples:
        return Examples(store, rows, chosen, length=options.length, long=options.long, line_ends=ends)

    rows, options = store.documents, encoder.options
    if options.validation_paths:
        files = find_files(options.validation_paths, options).files
        other, _ = cached_store(files, encoder, progress)
        both = np.isin(rows["digest"], other.documents["digest"])
        train = examples(store, rows, np.flatnonzero(~both))
        note = "validation: the files that you named"
        return _Split(train, examples(other, other.documents), int(both.sum()), note)
    if len(rows) == 1 and rows["text"][0] and options.validation and rows["end"][0] >= LEAST_TOKENS:
        share = options.validation if options.validation < 1 else 0.1
        parts = _cut_end(store, share, ends)
        note = f"validation: the last {share:.0%} of the only document"
        return _Split(examples(store, parts[:1]), examples(store, parts[1:]), 0, note)
    seed = SEED if options.seed is None else options.seed
    groups = groups_of(rows)
    chosen = split_documents(rows, options.validation, seed, groups)
    note = f"validation: {int(chosen.sum()):,} of {len(rows):,} documents, chosen by seed {seed}"
    if len(np.unique(groups)) < len(np.unique(rows["digest"])):
        note += "; documents with the same prompt stay together"
    train, validation = (examples(store, rows, np.flatnonzero(mask)) for mask in (~chosen, chosen))
    return _Split(train, validation, 0, note)


def split_documents(
    rows: NDArray[Any], validation: float, seed: int, groups: NDArray[np.uint64] | None = None
) -> NDArray[np.bool_]:
    """Return a mask of the validation documents; `validation` is a share of the tokens, or a number from 1.

    Groups (default: the field `group`) are ordered by a hash of their content and the seed, and chosen until
    the share is reached. If there are at least two groups, at least one is chosen, and never all.
    """
    named = rows["group"] if groups is None else groups
    groups, member = np.unique(mixed(named, seed), return_inverse=True)
    if validation == 0 or len(groups) < 2:
        return np.zeros(len(rows), np.bool_)
    by_number = validation >= 1
    weights = np.ones(len(rows), np.int64) if by_number else (rows["end"] - rows["start"]).astype(np.int64)
    sizes = np.bincount(member, weights, minlength=len(groups))
    goal = validation if by_number else validation * sizes.sum()
    taken = np.zeros(len(groups), np.bool_)
    if len(groups) > FEW:
        small = np.flatnonzero(sizes <= _MOST * goal)
        enough = int(np.searchsorted(np.cumsum(sizes[small]), goal)) + 1
        taken[small[: min(enough, len(groups) - 1)]] = True
    else:
        total = 0.0
        for number, size in enumerate(sizes):
            if total + size <= _MOST * goal and total < goal and taken.sum() < len(groups) - 1:
                taken[number] = True
                total += size
    if not taken.any():
        taken[int(np.argmin(sizes))] = True
    return np.asarray(taken[member])


def groups_of(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the group of every document: documents with one prompt, joined if they share an equal document.

    If all documents would be one group, only equal documents are grouped, since a split needs two groups.
    """
    names, group = np.unique(rows["group"], return_inverse=True)
    contents, document = np.unique(rows["digest"], return_inverse=True)
    label = np.arange(len(names))
    while len(rows):
        least = np.full(len(contents), len(names))
        np.minimum.at(least, document, label[group])
        joined = label.copy()
        np.minimum.at(joined, group, least[document])
        if np.array_equal(joined, label):
            break
        label = joined
    groups = np.asarray(names[label[group]], np.uint64)
    return groups if len(np.unique(groups)) > 1 else np.asarray(rows["digest"], np.uint64)


def mixed(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Mix a seed into hashes by SplitMix64 (Steele, Lea and Flood 2014), which is a bijection."""
    with np.errstate(over="ignore"):
        z = np.asarray(values, np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def _cut_end(store: Store, share: float, line_ends: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the only document as two, cut at the last blank line, or line, before its last `share`."""
    parts = np.concatenate((store.documents, store.documents))
    size = int(parts["end"][0])
    cut = min(max(round(size * (1 - share)), 2), size - 2)
    low = max(cut - max(round(size * share / 4), 1), 1)
    ends = line_ends[store.ids[low:cut]].astype(np.int64)
    ends[1:] += (ends[1:] == 1) & (ends[:-1] > 0)
    if ends.any():
        cut = low + int(np.flatnonzero(ends == ends.max())[-1]) + 1
    parts["end"][0] = parts["start"][1] = cut
    parts["last"][0], parts["first"][1] = cut - 1, cut + 1
    parts["learned"] = parts["end"] - parts["start"] - 1
    return parts


def _prompts_shared(train: Examples, validation: Examples) -> int:
    """Return the number of training documents with a prompt that a validation document has, too."""
    (prompts, text), (others, other_text) = (side.fields("group", "text") for side in (train, validation))
    return int(np.isin(prompts[~text], others[~other_text]).sum())


def _learned(examples: Examples) -> int:
    """Return the number of ids that one epoch learns."""
    start, last, learned = examples.fields("start", "last", "learned")
    total = int(learned.sum())
    for number in np.flatnonzero(examples.cut_documents):
        end = int(start[number]) + examples.length + 1
        total -= int(examples.store.trained(end, int(last[number]) + 1).sum())
    return total


def _report(files: FoundFiles, store: Store, split: _Split, encoder: ItemEncoder, cached: bool) -> DataReport:
    facts, train, validation, options = store.facts, split.train, split.validation, encoder.options
    kinds = dict.fromkeys(f"{file.layout} ({CONTAINERS[file.container]})" for file in files.files)
    source = "detected from the first good records" if options.format == "auto" else "as requested"
    cut = train.cut_documents
    start, end, text = train.fields("start", "end", "text")
    digests = store.documents["digest"]
    report = DataReport(
        format=f"{', '.join(kinds)}, {source}",
        files=tuple(facts["files"]),
        good=facts["good"],
        bad_count=facts["bad_count"],
        bad=tuple(BadLine(*line) for line in facts["bad"]),
        documents=len(train) + len(validation),
        validation_documents=len(validation),
        tokens=int((end - start).sum()) + int(np.subtract(*validation.fields("end", "start")).sum()),
        trained_tokens=_learned(train),
        validation_tokens=_learned(validation),
        longest=facts["longest"],
        truncated=int(cut.sum()),
        tokens_cut=int((end - start)[cut].sum()) - int(cut.sum()) * (options.length + 1),
        split=int((~cut & (end - start > options.length + 1)).sum()),
        duplicates=len(digests) - len(np.unique(digests)),
        overlap=split.overlap,
        unused=facts["unused"],
        completions_only=not text.all() and options.completions_only is not False,
        notes=(split.note,),
        warnings=(),
        cache=str(store.folder),
        cache_bytes=store.nbytes,
        cached=cached,
    )
    facts = facts | {
        "memorised": report.good if text.all() and len(files.files) == 1 else report.documents,
        "unlearned": int((cut & (train.fields("first")[0] > start + options.length)).sum()),
        "prompts_shared": _prompts_shared(train, validation),
        "end": encoder.tokenizer.specials[encoder.end],
    }
    return with_remarks(report, facts, options, files)
