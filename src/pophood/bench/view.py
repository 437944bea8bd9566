"""BenchView: the figures of a benchmark as sentences, tables and a picture."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from pophood.bench.record import BenchRecord, EarlierRun, Spread, WorkRate, speed_table
from pophood.look.blocks import Block, Prose
from pophood.look.source import model_title
from pophood.look.view import View
from pophood.system import size_text
from pophood.table import Table, count

LIMITS = {  # limit of a work -> what could be faster
    "memory": "of what this machine's memory could deliver",
    "multiplications": "of what this machine can multiply",
}
BUSY = 0.25  # processors that other programs may use without a warning
NEAR = 0.03  # a rate within this share of the best one is as good
SLOW = 0.05  # by more than this share below the best, a number of threads is advised against
DOING = {"decode": "to generate", "prefill": "to read a prompt"}


@dataclass(frozen=True)
class BenchView(View):
    """How fast a model runs on this machine; `earlier` is another run that it is compared with."""

    record: BenchRecord
    earlier: EarlierRun | None = None
    name: ClassVar[str] = "bench"
    painter: ClassVar[str] = "pophood.bench.picture"

    @property
    def headline(self) -> str:
        setup = self.record.setup
        model = model_title(setup.model)
        decode = self.best("decode")
        if decode is None:
            return f"{model} on this machine: stopped before anything was measured"
        threads = count(decode.work.threads, "thread")
        return f"{model} generates {rate_text(decode.rate.median)} tokens/s here with {threads}"

    @property
    def alt(self) -> str:
        return " ".join(["Bars of tokens per second.", *self.sentences()])

    @property
    def notes(self) -> tuple[str, ...]:
        record, setup = self.record, self.record.setup
        rounds = count(record.rounds, "round") if record.complete else f"at most {record.rounds} rounds"
        notes = [
            f"Medians of {rounds}{', with the range' if record.rounds > 1 else ''}. Computed at "
            f"{setup.precision}, keys and values in {setup.kv}, with {setup.isa} kernels on "
            f"{setup.processor}."
        ]
        notes += record.remarks
        if not record.complete:
            notes.append("Stopped early: these are the figures so far.")
        if record.others is not None and (warning := busy_warning(record.others, setup.cores)):
            notes.append(f"{warning}.")
        if self.earlier is not None:
            notes.append(f"Compared with {self.earlier.place}.")
            notes += [f"Different {difference}." for difference in self.earlier.differences(setup)]
        return tuple(notes)

    def best(self, kind: str) -> WorkRate | None:
        """Return the rate of a kind of work at the usual number of threads, as other commands take it."""
        usual = self.record.setup.usual_threads
        rates = [one for one in self.record.rates if one.work.kind == kind and one.work.batch == 1]
        return next((one for one in rates if one.work.threads == usual), next(iter(rates), None))

    def rates_by_threads(self, kind: str) -> dict[int, float]:
        """Return the median rates of a kind of work by number of threads, at the least depth, alone."""
        first = self.best(kind)
        return {
            one.work.threads: one.rate.median
            for one in self.record.rates
            if first is not None
            and (one.work.kind, one.work.depth, one.work.batch) == (kind, first.work.depth, 1)
        }

    def best_threads(self, kind: str) -> int | None:
        """Return the least number of threads that is as fast as any, or None if only one was tried."""
        rates = self.rates_by_threads(kind)
        most = max(rates.values(), default=0.0) * (1 - NEAR)
        return min(n for n, rate in rates.items() if rate >= most) if len(rates) > 1 else None

    def slower_by(self, kind: str) -> float:
        """Return how much slower the default number of threads is than the best, 0 to 1; 0 if untried."""
        rates = self.rates_by_threads(kind)
        default = self.record.setup.default_threads
        return 1 - rates[default] / max(rates.values()) if default in rates else 0.0

    def sentences(self) -> list[str]:
        """Return what was measured, in plain sentences."""
        return [*self._speeds(), *self._threads(), *self._start(), *self._machine()]

    def tables(self) -> dict[str, Table]:
        """Return `speed` in tokens per second, `machine` in billions per second, and `start`."""
        machine = tuple(
            (one.threads, _billions(one.read_bandwidth), _billions(one.multiply_rate))
            for one in self.record.machine
        )
        earlier = None if self.earlier is None else self.earlier.medians
        tables = {
            "speed": speed_table(self.record.rates, earlier, self.title),
            "machine": Table(
                ("threads", "read_gigabytes", "multiply_gigaoperations"),
                machine,
                title="Rates of this machine per second",
                decimals={"read_gigabytes": 1, "multiply_gigaoperations": 0},
            ),
        }
        if (start := self.record.start) is not None:
            row = (start.seconds.median, start.seconds.least, start.seconds.most, start.peak_memory)
            columns = ("seconds", "least", "most", "peak_memory")
            tables["start"] = Table(columns, (row,), title="A new process to its tenth token")
        return tables

    def picture(self) -> tuple[Block, ...]:
        table = self.tables()["speed"]
        left_out = table.columns.index("ceiling")
        names = [{"tokens_per_second": "tokens/s"}.get(name, name) for name in table.columns]
        narrow = replace(
            table,
            columns=tuple(name for i, name in enumerate(names) if i != left_out),
            rows=tuple(tuple(cell for i, cell in enumerate(row) if i != left_out) for row in table.rows),
            decimals={**table.decimals, "tokens/s": table.decimals["tokens_per_second"]},
        )
        return (Prose("", tuple(self.sentences())), narrow)

    def to_json(self, *, arrays: bool = False) -> str:
        """Return the document that `--compare` reads; there are no arrays."""
        return json.dumps(self.record.as_dict(), ensure_ascii=False, allow_nan=False)

    def shell_command(self) -> str:
        source, words = self.source, ["pophood", "bench", "-m", shlex.quote(self.source.model)]
        words += ["--precision", source.precision, "--kv", self.record.setup.kv]
        words += ["--context", str(source.context)] if source.context is not None else []
        for place, scale in source.adapters:
            words += ["--adapter", shlex.quote(f"{place}:{scale!r}")]
        for name, value in self.options.items():
            flag = f"--{name.replace('_', '-')}"
            listed = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [flag] if value is True else [flag, listed]
        return " ".join(words)

    def python_code(self) -> str:
        source, kv = self.source, self.record.setup.kv
        more = f", adapters={list(source.adapters)!r}" if source.adapters else ""
        more += f", context={source.context}" if source.context is not None else ""
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return (
            "import pophood\n"
            f'lm = pophood.load({source.model!r}, precision="{source.precision}", kv="{kv}"{more})\n'
            f"view = pophood.benchmark(lm{options})"
        )

    # ---- sentences ----

    def _speeds(self) -> Iterator[str]:
        """Yield a sentence for each work at the usual number of threads."""
        single = self.best("decode")
        for one in self.record.rates:
            work = one.work
            if work.threads != self.record.setup.usual_threads:
                continue
            words = f"{_sentence_start(one)}: {_range(one.rate)}"
            if work.batch > 1 and single is not None:
                words += f", {one.rate.median / single.rate.median:.1f} times one sequence"
            elif one.share is not None and one.limit is not None:
                words += f", {100 * one.share:.0f} % {LIMITS[one.limit]}"
            yield words + self._ratio(one) + "."

    def _ratio(self, one: WorkRate) -> str:
        median = self.earlier and self.earlier.medians.get(one.work)
        return f"; {one.rate.median / median:.2f} times the earlier {rate_text(median)}" if median else ""

    def _threads(self) -> Iterator[str]:
        found = {kind: self.best_threads(kind) for kind in DOING}
        decode, prefill = found["decode"], found["prefill"]
        if decode is None or prefill is None:
            return
        default = self.record.setup.default_threads
        words = str(decode) if decode == prefill else f"{decode} to generate, {prefill} to read a prompt"
        slow = [kind for kind in DOING if self.slower_by(kind) > SLOW]
        if slow:
            much = " and ".join(f"{100 * self.slower_by(kind):.0f} % slower {DOING[kind]}" for kind in slow)
            words += f"; the default, {default}, is {much}: `--threads {found[slow[0]]}` is better here"
        elif default not in self.rates_by_threads("decode"):
            words += f"; the default, {default}, was not tried"
        elif not decode == prefill == default:
            words += f"; the default, {default}, is within {100 * SLOW:.0f} % of that"
        yield f"Best number of threads: {words}."

    def _start(self) -> Iterator[str]:
        record, setup = self.record, self.record.setup
        if record.start is not None:
            seconds = record.start.seconds
            span = f"{seconds.median:.2f} s"
            span += f" ({seconds.least:.2f} to {seconds.most:.2f})" if record.rounds > 1 else ""
            earlier = self.earlier and self.earlier.start
            ratio = f"; {seconds.median / earlier:.2f} times the earlier {earlier:.2f} s" if earlier else ""
            peak = size_text(record.start.peak_memory)
            yield f"Start: {span} from a new process to its tenth token{ratio}; {peak} of memory at most."
        per_token = setup.cache_per_position
        window = setup.cache_of_context or setup.context * per_token
        yield (
            f"Memory: {size_text(setup.weight_bytes)} of weights, {size_text(per_token)} of keys and values "
            f"per token, {size_text(window)} for the whole window of {setup.context:,}."
        )

    def _machine(self) -> Iterator[str]:
        usual = self.record.setup.usual_threads
        for one in self.record.machine:
            if one.threads == usual and one.read_bandwidth and one.multiply_rate:
                yield (
                    f"Machine: with {count(usual, 'thread')}, memory is read at "
                    f"{one.read_bandwidth / 1e9:.1f} GB/s, and {one.multiply_rate / 1e9:,.0f} billion 8-bit "
                    "operations/s are made."
                )


def busy_warning(others: float, cores: int) -> str:
    """Return a warning if other programs used more than a quarter of a processor on average, else "".

    >>> busy_warning(0.1, 2), busy_warning(1.04, 2)[:43]
    ('', 'Other programs used 1.0 of 2 processors mea')
    """
    if others <= BUSY:
        return ""
    return (
        f"Other programs used {others:.1f} of {count(cores, 'processor')} meanwhile: close them and measure "
        "again before you trust these figures"
    )


def rate_text(rate: float) -> str:
    """Format tokens per second with three digits or more.

    >>> rate_text(8.417), rate_text(342.2), rate_text(2713.4)
    ('8.42', '342', '2,713')
    """
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def _sentence_start(one: WorkRate) -> str:
    work = one.work
    if work.kind == "prefill":
        return f"Prefill of {count(work.tokens, 'token')}"
    if work.batch > 1:
        return f"Decode of {work.batch} texts together"
    return f"Decode after {count(work.depth, 'token')}"


def _range(rate: Spread) -> str:
    median = f"{rate_text(rate.median)} tokens/s"
    same = rate.least == rate.most
    return median if same else f"{median} ({rate_text(rate.least)} to {rate_text(rate.most)})"


def _billions(rate: float | None) -> float | None:
    return rate / 1e9 if rate else None
