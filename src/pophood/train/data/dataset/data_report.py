"""The report on the data of a run: counts, bad lines, notes on how it was read, and probable mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pophood.table import Table, count
from pophood.train.data.read.files import FoundFiles
from pophood.train.settings import DataOptions

MOST_LISTED = 10_000  # bad lines to list; all are counted
FEW = 20  # with fewer documents or lines, a warning says that the model will memorise them


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line or record that cannot be used, and the reason."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class DataProgress:
    """The progress of reading; `done` and `total` are bytes of the files."""

    done: int
    total: int
    documents: int
    tokens: int


OnProgress = Callable[[DataProgress], object] | None  # called from time to time while data is read


@dataclass(frozen=True, slots=True)
class DataReport:
    """The report on the data; `good` and `bad_count` count lines or records, depending on the format."""

    format: str  # "messages (JSONL), detected from the first good records"
    files: tuple[str, ...]
    good: int
    bad_count: int
    bad: tuple[BadLine, ...]  # the first 10,000
    documents: int  # of training and validation together
    validation_documents: int
    tokens: int  # of both, before cutting
    trained_tokens: int  # learned in one epoch of the training side, after cutting
    validation_tokens: int  # the same for the validation side
    longest: int  # tokens of the longest document
    truncated: int  # documents that lose their end
    tokens_cut: int
    split: int  # documents in several pieces
    duplicates: int  # documents that repeat another one, ignoring spaces and case
    overlap: int  # training documents left out because the validation files contain them
    unused: Mapping[str, int]  # field that nothing reads -> number of records that have it
    completions_only: bool
    notes: tuple[str, ...]  # how the data was read
    warnings: tuple[str, ...]  # probable mistakes in the data
    cache: str  # the folder with the token ids
    cache_bytes: int
    cached: bool  # from an earlier run

    @property
    def total(self) -> int:
        """All lines or records, good and bad."""
        return self.good + self.bad_count

    def bad_table(self) -> Table:
        """Return the bad lines as a table."""
        return Table(("file", "line", "why"), tuple((line.file, line.line, line.why) for line in self.bad))


def with_remarks(
    report: DataReport, facts: Mapping[str, Any], options: DataOptions, files: FoundFiles
) -> DataReport:
    """Return the report with notes on how the data was read and warnings about it.

    `facts` are those of the store and: `memorised`, the lines of a single text or else the documents;
    `unlearned`, documents with nothing to learn before the cut; `prompts_shared`, training documents with a
    prompt that a validation document has, too; `end`, the end token.
    """
    notes = (*report.notes, *_notes(report, facts, options, files))
    warnings = (*_warnings(report, facts, options), *_split_warnings(report, facts, files))
    return replace(report, notes=notes, warnings=warnings)


def _notes(
    report: DataReport, facts: Mapping[str, Any], options: DataOptions, files: FoundFiles
) -> Iterator[str]:
    """Yield notes on long texts, and on fields and files that are not read."""
    if report.split:
        yield (
            f"{report.split:,} of {report.documents:,} documents are longer than {options.length:,} positions"
            " and are split at blank lines or line ends; positions restart in each piece, and nothing is lost"
        )
    if facts["unused"]:
        names = list(facts["unused"])
        fields = ", ".join(f"{name[:30]!r}" if name else "a column without a name" for name in names[:6])
        more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
        yield f"fields that are not used: {fields}{more}"
    if facts["short"]:
        rows = count(facts["short"], "row has", "rows have")
        yield f"{rows} no value in some columns, which are not read"
    if files.beside:
        beside = ", ".join(f"{name[:30]!r}" for name in files.beside[:6])
        yield f"not read, beside the list of records: {beside}"
    if files.skipped:
        kinds = ", ".join(sorted({path.suffix or path.name for path in files.skipped})[:6])
        others = count(len(files.skipped), "other file in the folder is", "other files in the folder are")
        yield f"{others} not read ({kinds})"
    if files.empty:
        some = ", ".join(str(path) for path in files.empty[:3])
        more = ", ..." if len(files.empty) > 3 else ""
        yield f"{count(len(files.empty), 'file is', 'files are')} empty ({some}{more})"


def _warnings(report: DataReport, facts: Mapping[str, Any], options: DataOptions) -> Iterator[str]:
    """Yield warnings: bad lines, too little data, cuts, missing end tokens, repetitions."""
    end = facts["end"]
    if report.bad_count:
        yield f"{report.bad_count:,} of {report.total:,} lines are bad and left out"
        foreign = sum("is not UTF-8" in why for _, _, why in facts["bad"])
        if foreign:
            yield (
                f"{count(foreign, 'line is', 'lines are')} not UTF-8: convert the file (with"
                " `iconv -f WINDOWS-1252 -t UTF-8` if it comes from an older Windows program)"
            )
    if facts["memorised"] < FEW:
        yield (
            f"only {facts['memorised']} lines or documents (fewer than {FEW}): the model will learn them by"
            " heart"
        )
    if not report.validation_documents:
        yield "there is no validation data: the only loss will be that of the training text"
    if report.truncated:
        train = report.documents - report.validation_documents
        yield (
            f"{report.truncated:,} of {train:,} documents ({report.truncated / train:.1%}) are longer than"
            f" {options.length:,} positions: {report.tokens_cut:,} tokens at their ends are cut off and not"
            " learned: choose a greater length"
        )
    if facts["unlearned"]:
        documents = count(facts["unlearned"], "document is", "documents are")
        yield f"{documents} cut before the part that is learned, and left out"
    if facts["end_added"]:
        conversations = count(facts["end_added"], "conversation", "conversations")
        yield (
            f"in {conversations} the chat template writes no end token after the last answer: {end!r} was"
            " added there, but not after earlier answers"
        )
    if facts["double_start"]:
        documents = count(facts["double_start"], "document begins", "documents begin")
        yield f"{documents} with two start tokens"
    for name, number in facts["unwritten"].items():
        what = f"the {name} text" if name in ("system", "developer") else f"{name[:30]!r} of messages"
        yield (
            f"in {count(number, 'conversation', 'conversations')} the chat template leaves out {what}:"
            " the model does not see it"
        )
    if facts["typed"]:
        documents = count(facts["typed"], "document spells", "documents spell")
        yield f"{documents} out special tokens such as {end!r}: encoded as ordinary text"
    if report.duplicates:
        share = report.duplicates / (report.documents + report.overlap)
        verb = "repeats" if report.duplicates == 1 else "repeat"
        documents = count(report.duplicates, "document", "documents")
        yield f"{documents} ({share:.1%}) {verb} another one"


def _split_warnings(report: DataReport, facts: Mapping[str, Any], files: FoundFiles) -> Iterator[str]:
    """Yield warnings about data that is on both sides, training and validation, or on the wrong one."""
    if files.kept_apart:
        names = ", ".join(path.name for path in files.kept_apart)
        are = "is" if len(files.kept_apart) == 1 else "are"
        yield (
            f"{names} {are} used for training like the other files: name the training file alone, and pass"
            " another one with --validation-data"
        )
    if report.overlap:
        yield (
            f"{count(report.overlap, 'training document is', 'training documents are')} in the validation"
            " files, too: left out of training"
        )
    if facts["prompts_shared"]:
        documents = count(facts["prompts_shared"], "training document has", "training documents have")
        yield (
            f"{documents} a prompt that the validation data has, too: the validation loss says little about"
            " new prompts"
        )
