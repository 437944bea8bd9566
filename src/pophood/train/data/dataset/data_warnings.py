"""A report in words: notes on what was done, warnings on what is probably not wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.train.data_options import DataOptions

if TYPE_CHECKING:
    from pophood.train.data.encode.encode import ItemEncoder
    from pophood.train.data.read.files import FoundFiles

FEW = 20  # documents or lines below which a model learns them by heart


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the two sides."""

    documents: int
    validation: int
    truncated: int
    split: int
    tokens_cut: int
    duplicates: int
    overlap: int
    prompts_shared: int  # training documents whose prompt a document of the validation has too
    memorised: int  # lines of a single text, else documents
    unlearned: int  # documents with nothing to learn before the cut


def notes_of(
    facts: Mapping[str, Any],
    counts: Counts,
    options: DataOptions,
    how: str,
    found: FoundFiles,
) -> tuple[str, ...]:
    """Notes on what was done: the split, long texts, fields and files that nothing reads."""
    notes = [how]
    if counts.split:
        notes.append(
            f"longer than {options.length:,} positions: {counts.split:,} of {counts.documents:,} documents,"
            " split at blank lines or lines near the end of a piece; positions start again in each,"
            " nothing is lost"
        )
    if facts["unused"]:
        names = list(facts["unused"])
        fields = ", ".join(f"{name[:30]!r}" if name else "a column without a name" for name in names[:6])
        more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
        notes.append(f"fields that are not used: {fields}{more}")
    if facts["short"]:
        rows = "1 row has" if facts["short"] == 1 else f"{facts['short']:,} rows have"
        notes.append(f"{rows} no value in some columns, none of which is read")
    if found.beside:
        beside = ", ".join(f"{name[:30]!r}" for name in found.beside[:6])
        notes.append(f"beside the list of records, not read: {beside}")
    if found.skipped:
        kinds = ", ".join(sorted({path.suffix or path.name for path in found.skipped})[:6])
        notes.append(f"{len(found.skipped):,} other files in the folder are not read ({kinds})")
    if found.empty:
        some = ", ".join(str(path) for path in found.empty[:3])
        more = ", ..." if len(found.empty) > 3 else ""
        files = "1 file is" if len(found.empty) == 1 else f"{len(found.empty):,} files are"
        notes.append(f"{files} empty ({some}{more})")
    return tuple(notes)


def warnings_of(
    facts: Mapping[str, Any],
    counts: Counts,
    options: DataOptions,
    encoder: ItemEncoder,
    kept_apart: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Double starts, ends that are never learned, cuts, repetitions, overlap, too little data."""
    end = encoder.tokenizer.specials[encoder.end]
    found: list[str] = []
    if facts["bad_count"]:
        total = facts["good"] + facts["bad_count"]
        found.append(f"{facts['bad_count']:,} of {total:,} lines are bad and left out")
        foreign = sum("is not UTF-8" in why for _, _, why in facts["bad"])
        if foreign:
            lines = "1 line is" if foreign == 1 else f"{foreign:,} lines are"
            found.append(
                f"{lines} not UTF-8: convert the file (`iconv -f WINDOWS-1252 -t UTF-8` if it"
                " comes from an older Windows program)"
            )
    if counts.memorised < FEW:
        found.append(
            f"only {counts.memorised} lines or documents (fewer than {FEW}): the model will learn them by"
            " heart"
        )
    if not counts.validation:
        found.append(
            "nothing is left to validate with: the only loss shown will be that of the training text"
        )
    if counts.truncated:
        train = counts.documents - counts.validation
        found.append(
            f"{counts.truncated:,} of {train:,} documents ({counts.truncated / train:.1%}) are longer than"
            f" {options.length:,} positions: {counts.tokens_cut:,} tokens are cut off and their ends never"
            " learned: choose a greater length"
        )
    if counts.unlearned:
        found.append(f"{counts.unlearned:,} documents are cut before anything that is learned, and left out")
    if facts["end_added"]:
        found.append(
            f"in {facts['end_added']:,} conversations the chat template writes no end token after the last"
            f" answer: {end!r} was added, answers before it have none"
        )
    if facts["double_start"]:
        found.append(f"{facts['double_start']:,} documents begin with two start tokens")
    for name, number in facts["unwritten"].items():
        what = f"the {name} text" if name in ("system", "developer") else f"{name[:30]!r} of messages"
        found.append(
            f"in {number:,} conversations the chat template leaves out {what}: the model does not see it"
        )
    if facts["typed"]:
        found.append(
            f"{facts['typed']:,} documents spell out special tokens such as {end!r}: taken as ordinary text"
        )
    if counts.duplicates:
        share = counts.duplicates / (counts.documents + counts.overlap)
        found.append(f"{counts.duplicates:,} documents ({share:.1%}) repeat another one")
    return tuple(found + _of_the_sides(counts, kept_apart))


def _of_the_sides(counts: Counts, kept_apart: Sequence[Path]) -> list[str]:
    """Warnings of what stands on both sides, training and validation, or on the wrong one."""
    found: list[str] = []
    if kept_apart:
        names = ", ".join(path.name for path in kept_apart)
        are = "is" if len(kept_apart) == 1 else "are"
        found.append(
            f"{names} {are} trained on like the other files: give the file to train on alone, and another one"
            " with --validation-data"
        )
    if counts.overlap:
        found.append(
            f"{counts.overlap:,} training documents are among the validation files too: left out of training"
        )
    if counts.prompts_shared:
        one = counts.prompts_shared == 1
        documents = "1 training document has" if one else f"{counts.prompts_shared:,} training documents have"
        found.append(
            f"{documents} a prompt that is validated with too: the"
            " validation loss says little about other prompts"
        )
    return found
