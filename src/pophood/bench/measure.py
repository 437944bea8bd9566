"""Measures a loaded model in interleaved rounds, so that a machine that slows down slows everything alike."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import Any

from pophood import system
from pophood.bench.ceilings import ModelCost
from pophood.bench.record import (
    BenchRecord,
    EarlierRun,
    MachineRate,
    Setup,
    Spread,
    StartCost,
    WorkRate,
    read_earlier,
)
from pophood.bench.settings import BenchPlan, BenchSettings, Work, plan
from pophood.bench.timing import ProcessRun, Timer, run_process, start_command
from pophood.bench.view import BenchView
from pophood.errors import BadInput
from pophood.look.source import ViewSource
from pophood.model.engine import CancelFlag, multiply_rate, read_bandwidth
from pophood.model.lm import LM, load
from pophood.model.memory import MemoryPlan, plan_memory
from pophood.table import count

READ_BYTES = 1 << 30  # of the array for the read bandwidth; larger than every cache
READ_BYTES_SMALL = 1 << 28  # where memory is short
LISTS = ("depth", "batch", "threads")  # settings with several numbers
WARM_UP = 8  # tokens that are decoded before anything is measured
Job = tuple[str, Callable[[], object]]  # its name, and the function that does it


@dataclass(frozen=True, slots=True)
class BenchStep:
    """One step that is about to be done, for a progress bar: number `done` of `total`, from 0.

    `round` is 0 while it warms up.
    """

    done: int
    total: int
    round: int
    what: str


class Benchmark:
    """A benchmark of one model. `run` yields its steps; `view` has the figures, whenever it stopped.

    benchmark = Benchmark(pophood.load("smollm2"))
    for step in benchmark.run(): print(step.what)
    print(benchmark.view().sentences())
    """

    def __init__(
        self,
        lm: LM,
        settings: BenchSettings | None = None,
        earlier: EarlierRun | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        self.lm, self.earlier = lm, earlier
        self.settings = settings or BenchSettings()
        self._default_threads = lm.engine.threads
        self.plan: BenchPlan = plan(self.settings, lm.engine.context, lm.engine.threads)
        self._timer = Timer(lm, cancel)
        self._remarks: list[str] = []
        self._start = self._start_command() if self.plan.start else None
        self._rates: defaultdict[Work, list[float]] = defaultdict(list)
        self._bandwidth: dict[int, float] = {}  # by threads
        self._multiply: dict[int, float] = {}
        self._processes: list[ProcessRun] = []
        self._complete = False
        self._others: float | None = None
        self._others_before, self._began = system.others_seconds(), time.perf_counter()

    def run(self) -> Iterator[BenchStep]:
        """Warm up, then measure everything once per round; each step is yielded before it is done."""
        usual = self.lm.engine.threads
        self._others_before, self._began = system.others_seconds(), time.perf_counter()
        jobs = self._jobs()
        total = len(self._warm_up()) + self.plan.rounds * len(jobs)
        done = 0
        try:
            for what, job in self._warm_up():
                yield BenchStep(done, total, 0, what)
                job()
                done += 1
            for number in range(1, self.plan.rounds + 1):
                for what, job in jobs:
                    yield BenchStep(done, total, number, f"round {number} of {self.plan.rounds}: {what}")
                    job()
                    done += 1
            self._complete = True
        finally:
            self._others = self.others()
            self._timer.close()
            self.lm.engine.use_threads(usual)

    def _jobs(self) -> list[Job]:
        """Return the jobs of one round, each with its name."""
        jobs: list[Job] = [
            (f"this machine, {_threads(n)}", partial(self._measure_machine, n)) for n in self.plan.threads
        ]
        jobs += [
            (f"{work.name}, {_threads(work.threads)}", partial(self._measure, work))
            for work in self.plan.works
        ]
        if self._start is not None:
            jobs.append(("a new process", self._measure_start))
        return jobs

    def _warm_up(self) -> list[Job]:
        """Return what is done before the rounds: prompts are computed, files and pages are read once."""
        seen: dict[tuple[str, int, int], Work] = {}
        for work in self.plan.works:
            short = work if work.kind == "prefill" else replace(work, tokens=min(work.tokens, WARM_UP))
            seen[work.kind, work.depth, work.batch] = replace(short, threads=self.plan.usual)
        jobs: list[Job] = [
            (f"warming up: {work.name}", partial(self._timer.rate, work)) for work in seen.values()
        ]
        if self._start is not None:
            jobs.append(("warming up: a new process", partial(run_process, self._start)))
        return jobs

    def _memory(self) -> MemoryPlan:
        engine, stored_type = self.lm.engine, self.lm.bundle.weights.stored_type
        return plan_memory(self.lm.config, stored_type, engine.context, engine.precision, engine.kv)

    def _start_command(self) -> list[str] | None:
        """Return the arguments for a new process, or None, with a remark, if there can be none."""
        command = start_command(self.lm, self.plan.usual)
        if command is None:
            self._remarks.append("No new process was measured, since an adapter is not on the disk.")
            return None
        needed = self._memory().least
        free = system.available_memory()
        if needed > free:
            self._remarks.append(
                f"No new process was measured, since the model does not fit into memory twice: it needs "
                f"{system.memory_text(needed)}, and {system.memory_text(free)} is free."
            )
            return None
        return command

    def _measure_machine(self, threads: int) -> None:
        """Keep the best rates of all rounds: a ceiling is what the machine can do undisturbed."""
        size = READ_BYTES if system.available_memory() > 4 * READ_BYTES else READ_BYTES_SMALL
        read, multiplied = read_bandwidth(threads, size, rounds=3), multiply_rate(threads, rounds=3)
        self._bandwidth[threads] = max(self._bandwidth.get(threads, 0.0), read)
        self._multiply[threads] = max(self._multiply.get(threads, 0.0), multiplied)

    def _measure(self, work: Work) -> None:
        rate = self._timer.rate(work)  # Ctrl-C must not leave an empty list
        self._rates[work].append(rate)

    def _measure_start(self) -> None:
        assert self._start is not None
        self._processes.append(run_process(self._start))

    # ---- results ----

    def others(self) -> float | None:
        """Return how many processors other programs have used on average since `run` began, if known."""
        now, before = system.others_seconds(), self._others_before
        if now is None or before is None:
            return None
        return max(0.0, now - before) / max(time.perf_counter() - self._began, 1e-9)

    def record(self) -> BenchRecord:
        """Return the figures so far."""
        cost = ModelCost.of(self.lm)
        rates = []
        for work, values in self._rates.items():
            found = cost.ceiling(work, self._bandwidth.get(work.threads), self._multiply.get(work.threads))
            rates.append(WorkRate(work, Spread.of(values), *(found or ())))
        start = None
        if self._processes:
            seconds = Spread.of([one.seconds for one in self._processes])
            start = StartCost(seconds, max(one.peak_memory for one in self._processes))
        machine = tuple(
            MachineRate(n, self._bandwidth.get(n), self._multiply.get(n))
            for n in self.plan.threads
            if n in self._multiply
        )
        return BenchRecord(
            self._setup(cost),
            self.plan.rounds,
            self._complete,
            tuple(rates),
            machine,
            start,
            self._others,
            tuple(self._remarks),
        )

    def view(self) -> BenchView:
        """Return the figures so far, with sentences, tables and a picture."""
        options = {name: getattr(self.settings, name) for name in type(self.settings).__slots__}
        defaults = BenchSettings()
        changed = {name: value for name, value in options.items() if value != getattr(defaults, name)}
        return BenchView(ViewSource.of(self.lm), self.record(), self.earlier, options=changed)

    def _setup(self, cost: ModelCost) -> Setup:
        engine = self.lm.engine
        return Setup(
            pophood=metadata.version("pophood"),
            model=self.lm.name,
            precision=engine.precision,
            kv=engine.kv,
            isa=engine.isa,
            context=engine.context,
            weight_bytes=engine.weight_bytes,
            cache_per_position=cost.cache,
            cache_of_context=self._memory().cache(engine.context),
            processor=system.processor_name(),
            cores=os.cpu_count() or 1,
            usual_threads=self.plan.usual,
            adapters=", ".join(ViewSource.of(self.lm).adapter_names()),
            default_threads=self._default_threads,
        )


def benchmark(
    model: LM | str | os.PathLike[str] | None = None,
    *,
    compare: str | os.PathLike[str] | None = None,
    progress: Callable[[BenchStep], object] | None = None,
    **settings: Any,
) -> BenchView:
    """Measure how fast a model runs on this machine, beside what the machine could deliver.

    `model` is a loaded model or a name as for `load`. The keywords are the fields of BenchSettings: prompt,
    tokens, depth, batch, threads, rounds, no_start. `compare` is a file of an earlier run, and `progress`
    gets every step before it is done. Raises BadInput for a wrong setting.

        view = pophood.benchmark("smollm2", rounds=1)
        print(view.sentences()); view.save("bench.svg")
    """
    known = BenchSettings.__slots__
    if unknown := sorted(settings.keys() - set(known)):
        raise BadInput(f"no setting is called {', '.join(unknown)}; there are: {', '.join(known)}")
    for name, value in settings.items():
        if name in LISTS and value is not None:
            settings[name] = (value,) if isinstance(value, int) else tuple(value)
    chosen = BenchSettings(**settings)
    earlier = None if compare is None else read_earlier(compare)
    whole = Benchmark(model if isinstance(model, LM) else load(model), chosen, earlier)
    for step in whole.run():
        if progress is not None:
            progress(step)
    return whole.view()


def _threads(n: int) -> str:
    return count(n, "thread")
