"""Notes on how the data was read, and warnings about probable mistakes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.train.data_options import DataOptions

if TYPE_CHECKING:
    from pophood.train.data.encode.encode import ItemEncoder
    from pophood.train.data.read.files import FoundFiles

FEW = 20  # with fewer documents or lines, a warning says that the model will memorise them


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts over training and validation data."""

    documents: int
    validation: int
    truncated: int
    split: int
    tokens_cut: int
    duplicates: int
    overlap: int
    prompts_shared: int  # training documents with a prompt that a validation document has, too
    memorised: int  # lines of a single text, or documents
    unlearned: int  # documents with nothing to learn before the cut


def notes_of(
    facts: Mapping[str, Any],
    counts: Counts,
    options: DataOptions,
    split_note: str,
    files: FoundFiles,
) -> tuple[str, ...]:
    """Return notes on the split, long texts, and fields and files that are not read."""
    notes = [split_note]
    if counts.split:
        notes.append(
            f"{counts.split:,} of {counts.documents:,} documents are longer than {options.length:,} positions"
            " and are split at blank lines or line ends; positions restart in each piece, and nothing is lost"
        )
    if facts["unused"]:
        names = list(facts["unused"])
        fields = ", ".join(f"{name[:30]!r}" if name else "a column without a name" for name in names[:6])
        more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
        notes.append(f"fields that are not used: {fields}{more}")
    if facts["short"]:
        rows = _count(facts["short"], "row has", "rows have")
        notes.append(f"{rows} no value in some columns, which are not read")
    if files.beside:
        beside = ", ".join(f"{name[:30]!r}" for name in files.beside[:6])
        notes.append(f"not read, beside the list of records: {beside}")
    if files.skipped:
        kinds = ", ".join(sorted({path.suffix or path.name for path in files.skipped})[:6])
        others = _count(len(files.skipped), "other file in the folder is", "other files in the folder are")
        notes.append(f"{others} not read ({kinds})")
    if files.empty:
        some = ", ".join(str(path) for path in files.empty[:3])
        more = ", ..." if len(files.empty) > 3 else ""
        notes.append(f"{_count(len(files.empty), 'file is', 'files are')} empty ({some}{more})")
    return tuple(notes)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def warnings_of(
    facts: Mapping[str, Any],
    counts: Counts,
    options: DataOptions,
    encoder: ItemEncoder,
    kept_apart: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Return warnings: bad lines, too little data, cuts, missing end tokens, repetitions, overlap."""
    end = encoder.tokenizer.specials[encoder.end]
    warnings: list[str] = []
    if facts["bad_count"]:
        total = facts["good"] + facts["bad_count"]
        warnings.append(f"{facts['bad_count']:,} of {total:,} lines are bad and left out")
        foreign = sum("is not UTF-8" in why for _, _, why in facts["bad"])
        if foreign:
            warnings.append(
                f"{_count(foreign, 'line is', 'lines are')} not UTF-8: convert the file (with"
                " `iconv -f WINDOWS-1252 -t UTF-8` if it comes from an older Windows program)"
            )
    if counts.memorised < FEW:
        warnings.append(
            f"only {counts.memorised} lines or documents (fewer than {FEW}): the model will learn them by"
            " heart"
        )
    if not counts.validation:
        warnings.append("there is no validation data: the only loss will be that of the training text")
    if counts.truncated:
        train = counts.documents - counts.validation
        warnings.append(
            f"{counts.truncated:,} of {train:,} documents ({counts.truncated / train:.1%}) are longer than"
            f" {options.length:,} positions: {counts.tokens_cut:,} tokens at their ends are cut off and not"
            " learned: choose a greater length"
        )
    if counts.unlearned:
        documents = _count(counts.unlearned, "document is", "documents are")
        warnings.append(f"{documents} cut before the part that is learned, and left out")
    if facts["end_added"]:
        conversations = _count(facts["end_added"], "conversation", "conversations")
        warnings.append(
            f"in {conversations} the chat template writes no end token after the last answer: {end!r} was"
            " added there, but not after earlier answers"
        )
    if facts["double_start"]:
        documents = _count(facts["double_start"], "document begins", "documents begin")
        warnings.append(f"{documents} with two start tokens")
    for name, number in facts["unwritten"].items():
        what = f"the {name} text" if name in ("system", "developer") else f"{name[:30]!r} of messages"
        warnings.append(
            f"in {_count(number, 'conversation', 'conversations')} the chat template leaves out {what}:"
            " the model does not see it"
        )
    if facts["typed"]:
        documents = _count(facts["typed"], "document spells", "documents spell")
        warnings.append(f"{documents} out special tokens such as {end!r}: encoded as ordinary text")
    if counts.duplicates:
        share = counts.duplicates / (counts.documents + counts.overlap)
        verb = "repeats" if counts.duplicates == 1 else "repeat"
        documents = _count(counts.duplicates, "document", "documents")
        warnings.append(f"{documents} ({share:.1%}) {verb} another one")
    return tuple(warnings + _split_warnings(counts, kept_apart))


def _split_warnings(counts: Counts, kept_apart: Sequence[Path]) -> list[str]:
    """Return warnings about data that is on both sides, training and validation, or on the wrong one."""
    warnings: list[str] = []
    if kept_apart:
        names = ", ".join(path.name for path in kept_apart)
        are = "is" if len(kept_apart) == 1 else "are"
        warnings.append(
            f"{names} {are} used for training like the other files: name the training file alone, and pass"
            " another one with --validation-data"
        )
    if counts.overlap:
        warnings.append(
            f"{_count(counts.overlap, 'training document is', 'training documents are')} in the validation"
            " files, too: left out of training"
        )
    if counts.prompts_shared:
        documents = _count(counts.prompts_shared, "training document has", "training documents have")
        warnings.append(
            f"{documents} a prompt that the validation data has, too: the validation loss says little about"
            " new prompts"
        )
    return warnings
