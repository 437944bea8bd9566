"""open_data: files to training and validation examples with a report. Puts the other modules together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.dataset.cache import keep, line_ends
from pophood.train.data.dataset.data_report import BadLine, DataReport, Progress
from pophood.train.data.dataset.data_warnings import Counts, notes_of, warnings_of
from pophood.train.data.dataset.examples import Examples
from pophood.train.data.dataset.split import SEED, groups_of, repeats, shared, split_documents
from pophood.train.data.dataset.store import Store
from pophood.train.data.encode.encode import ItemEncoder
from pophood.train.data.read.containers import CONTAINERS
from pophood.train.data.read.files import FoundFiles, find_files
from pophood.train.data_options import DataOptions

LEAST_TOKENS = 64  # of a single document whose end is to validate


@dataclass(frozen=True, slots=True)
class Data:
    """What a run trains on; `validation` may be empty (a single short document), the report says so.

    `template`: Jinja source that has to be written with the trained model, because the data was put into it
    and the model has none of its own; None otherwise.
    """

    train: Examples
    validation: Examples
    report: DataReport
    template: str | None


def open_data(
    paths: Sequence[str | PathLike[str]] | str | PathLike[str],
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    options: DataOptions | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Data:
    """Read files and folders, once: their ids are kept on the disk and mapped from then on.

    Raises NotFound, BadFile, BadInput in one line; with `options.strict` BadFile for the first bad line, by
    number.

        data = open_data("notes.jsonl", bundle.tokenizer, bundle.chat_template, DataOptions(length=256))
        data.train[0].ids, data.report.good
    """
    options = options or DataOptions()
    paths = [paths] if isinstance(paths, (str, PathLike)) else paths
    found = find_files([Path(path) for path in paths], options)
    files = found.files
    chats = any(file.layout not in ("text", "lines") for file in files)
    if options.completions_only and not chats:
        raise BadInput(
            "the data is plain text, which has no completions to learn alone: leave that option out"
        )
    encoder = ItemEncoder(
        tokenizer,
        template,
        completions_only=options.completions_only,
        joined=options.joined,
        special=options.special,
    )
    store, cached = keep(files, encoder, options, progress)
    ends = line_ends(tokenizer)
    train, validation, overlap, how = _sides(store, encoder, options, ends, progress)
    if len(train) == 0 and overlap:
        raise BadInput(
            f"nothing is left to train on: all {overlap:,} documents are among the validation files too:"
            " validate with other files, or leave them out to keep a tenth apart"
        )
    if len(train) == 0:
        first = f"; the first: {BadLine(*store.facts['bad'][0])}" if store.facts["bad"] else ""
        raise BadInput(
            f"the data has no document to train on: {store.facts['good']:,} good lines,"
            f" {store.facts['bad_count']:,} bad{first}"
        )
    report = _report(found, store, train, validation, options, cached, overlap, how, encoder)
    travels = encoder.template.source if template is None and chats and not options.joined else None
    return Data(train, validation, report, travels)


def _sides(
    store: Store,
    encoder: ItemEncoder,
    options: DataOptions,
    ends: NDArray[np.uint8],
    progress: Callable[[Progress], object] | None,
) -> tuple[Examples, Examples, int, str]:
    """Training and validation, how many training documents were left out as they validate, and how it was
    done."""

    def examples(store: Store, rows: NDArray[Any], chosen: NDArray[np.int64] | None = None) -> Examples:
        return Examples(store, rows, chosen, length=options.length, long=options.long, line_ends=ends)

    rows = store.documents
    if options.validation_paths:
        files = find_files(options.validation_paths, options).files
        other, _ = keep(files, encoder, options, progress)
        both = shared(rows["digest"], other.documents["digest"])
        train = examples(store, rows, np.flatnonzero(~both))
        return (
            train,
            examples(other, other.documents),
            int(both.sum()),
            "validation: the files that you named",
        )
    if len(rows) == 1 and rows["text"][0] and options.validation and rows["end"][0] >= LEAST_TOKENS:
        share = options.validation if options.validation < 1 else 0.1
        parts = _ends_apart(store, share, ends)
        how = f"validation: the last {share:.0%} of the only document"
        return examples(store, parts[:1]), examples(store, parts[1:]), 0, how
    seed = SEED if options.seed is None else options.seed
    groups = groups_of(rows)
    chosen = split_documents(rows, options.validation, seed, groups)
    how = f"validation: {int(chosen.sum()):,} of {len(rows):,} documents, chosen by seed {seed}"
    if len(np.unique(groups)) < len(np.unique(rows["digest"])):
        how += "; documents with the same prompt stay together"
    return (
        examples(store, rows, np.flatnonzero(~chosen)),
        examples(store, rows, np.flatnonzero(chosen)),
        0,
        how,
    )


def _ends_apart(store: Store, share: float, line_ends: NDArray[np.uint8]) -> NDArray[Any]:
    """The only document as two: cut at the last blank line (else line) before its last `share`."""
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
    """Training documents with a prompt that a validation document has too."""
    (asked, text), (other, other_text) = (side.fields("group", "text") for side in (train, validation))
    return int(np.isin(asked[~text], other[~other_text]).sum())


def _learned(examples: Examples) -> int:
    """Ids that one epoch learns."""
    start, last, learned = examples.fields("start", "last", "learned")
    total = int(learned.sum())
    for number in np.flatnonzero(examples.cut_documents):
        kept = int(start[number]) + examples.length + 1
        total -= int(examples.store.trained(kept, int(last[number]) + 1).sum())
    return total


def _report(
    found: FoundFiles,
    store: Store,
    train: Examples,
    validation: Examples,
    options: DataOptions,
    cached: bool,
    overlap: int,
    how: str,
    encoder: ItemEncoder,
) -> DataReport:
    facts = store.facts
    kinds = dict.fromkeys(f"{file.layout} ({CONTAINERS[file.container]})" for file in found.files)
    said = "found by the first good records" if options.format == "auto" else "as told"
    cut = train.cut_documents
    start, end, text = train.fields("start", "end", "text")
    lost = int((end - start)[cut].sum()) - int(cut.sum()) * (options.length + 1)
    counts = Counts(
        documents=len(train) + len(validation),
        validation=len(validation),
        truncated=int(cut.sum()),
        split=int((~cut & (end - start > options.length + 1)).sum()),
        tokens_cut=lost,
        duplicates=repeats(store.documents["digest"]),
        overlap=overlap,
        prompts_shared=_prompts_shared(train, validation),
        memorised=facts["good"] if text.all() and len(found.files) == 1 else len(train) + len(validation),
        unlearned=int((cut & (train.fields("first")[0] > start + options.length)).sum()),
    )
    return DataReport(
        format=f"{', '.join(kinds)}, {said}",
        files=tuple(facts["files"]),
        good=facts["good"],
        bad_count=facts["bad_count"],
        bad=tuple(BadLine(*line) for line in facts["bad"]),
        documents=counts.documents,
        validation_documents=counts.validation,
        tokens=int((end - start).sum()) + int(np.subtract(*validation.fields("end", "start")).sum()),
        trained_tokens=_learned(train),
        validation_tokens=_learned(validation),
        longest=facts["longest"],
        truncated=counts.truncated,
        tokens_cut=counts.tokens_cut,
        split=counts.split,
        duplicates=counts.duplicates,
        overlap=overlap,
        unused=facts["unused"],
        completions_only=not text.all() and options.completions_only is not False,
        notes=notes_of(facts, counts, options, how, found),
        warnings=warnings_of(facts, counts, options, encoder, found.kept_apart),
        cache=str(store.folder),
        cache_bytes=store.nbytes,
        cached=cached,
    )
