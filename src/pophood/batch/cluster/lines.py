"""RayLines: the lines of a batch as a step of Ray Data, with one loaded model in each actor."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pophood.batch.answering import Answering
from pophood.batch.answers import encoded
from pophood.batch.cluster.nodes import NodeReport, RayModel, report_of
from pophood.batch.custom_ids import CustomIds
from pophood.batch.lines import HASH_CHARACTERS, MOST_BYTES, InputLine
from pophood.batch.model import BatchModel, LineDefaults
from pophood.batch.shapes import failed
from pophood.errors import BadInput
from pophood.generate.scheduler import TOGETHER
from pophood.openai.errors import ApiError

Columns = dict[str, Any]


class RayLines:
    """Answers batches of lines, each as `pophood batch` answers it: a class for `Dataset.map_batches`.

    A batch has the column `line` (texts or bytes in JSON: docs/batch.md) and perhaps `number`, on which the
    seed of a line without one depends. The answers have `number`, `answer` (JSON), `failed`, and the numbers
    of tokens `read` and `written`. They come in order, and do not depend on the batch or the machine.

        lines = ray.data.read_text("prompts.jsonl").rename_columns({"text": "line"})
        options = {"threads": 2, "defaults": LineDefaults(max_tokens=50)}
        answers = lines.map_batches(
            RayLines,
            fn_constructor_args=("smollm2",),
            fn_constructor_kwargs=options,
            batch_size=64,
            num_cpus=2,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
    """

    def __init__(
        self,
        model: str | RayModel,
        *,
        threads: int | None = None,
        defaults: LineDefaults | None = None,
        aliases: Sequence[str] = (),
        together: int = TOGETHER,
        driver: NodeReport | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Load the model, which must be on this machine; give Ray as many `num_cpus` as there are `threads`.

        `driver` is the report that this machine's must equal, `fingerprint` the one that answers in OpenAI's
        shape state. Raises subclasses of PophoodError.
        """
        model = RayModel(model) if isinstance(model, str) else model
        lm = model.load(threads)
        self._model = BatchModel(lm, defaults, aliases=aliases, fingerprint=fingerprint)
        if driver is not None:
            driver.check(report_of(self._model))
        self._together = together
        self._answering = Answering(self._model, together=together, ids=_AnyIds())

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Columns]:
        """Yield the answers of a batch, `together` at a time: a retry by Ray must yield the same parts."""
        tally = self._answering.tally
        read, written = tally.read, tally.written
        rows: list[tuple[int, str, bool, int, int]] = []
        for record in self._answering.records(ListedLines(_lines_of(batch))):
            text = encoded(record).decode("ascii").rstrip("\n")
            rows.append((record["line"], text, failed(record), tally.read - read, tally.written - written))
            read, written = tally.read, tally.written
            if len(rows) == self._together:
                yield _columns(rows)
                rows = []
        if rows:
            yield _columns(rows)


class ListedLines:
    """Lines that are all there: a source for `Answering.records`."""

    def __init__(self, lines: Iterable[InputLine]) -> None:
        self._lines = deque(lines)

    @property
    def ended(self) -> bool:
        """True when every line was taken."""
        return not self._lines

    def next(self, *, wait: bool = True) -> InputLine | None:
        """Return the next line; None at the end."""
        return self._lines.popleft() if self._lines else None


class _AnyIds(CustomIds):
    """Accepts every custom_id: an actor does not see all lines, and may see one twice."""

    def add(self, custom_id: str, line: int) -> ApiError | None:
        return None


def _columns(rows: Sequence[tuple[int, str, bool, int, int]]) -> Columns:
    numbers, texts, failures, read, written = zip(*rows, strict=True)
    return {
        "number": np.array(numbers, np.int64),
        "answer": np.array(texts, object),
        "failed": np.array(failures, bool),
        "read": np.array(read, np.int64),
        "written": np.array(written, np.int64),
    }


def _lines_of(batch: Mapping[str, Any]) -> Iterator[InputLine]:
    """Yield the lines of a batch. Raises BadInput for one without the column."""
    if "line" not in batch:
        raise BadInput(f"the batch has the columns {', '.join(batch)}; wanted `line`, and perhaps `number`")
    lines = list(batch["line"])
    for line, number in zip(lines, batch.get("number", [0] * len(lines)), strict=True):
        data = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else bytes(line)
        digest = hashlib.sha256(data).hexdigest()[:HASH_CHARACTERS]
        yield InputLine(int(number), data if len(data) <= MOST_BYTES else None, len(data), digest)
