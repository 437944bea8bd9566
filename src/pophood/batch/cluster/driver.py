"""RayAnswering: lines that the machines of a Ray cluster answer. Only this file imports Ray.

    source ─► blocks of lines in Ray's store ─► map_batches(RayLines) ─► InOrder ─► records
                                                one actor on each node

Ray moves the data, starts the actors, and lets others compute what a node that dies had not sent: Ray Data
retries without end. Only if it gives up, the run begins anew with the lines that are left.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from pophood.batch.answering import RequestLines, Tally
from pophood.batch.cluster.in_order import InOrder
from pophood.batch.cluster.lines import RayLines
from pophood.batch.cluster.nodes import NodeReport, RayModel, examine, report_of, require_ray
from pophood.batch.custom_ids import CustomIds
from pophood.batch.model import BatchModel
from pophood.batch.parse import early_answer
from pophood.batch.shapes import Record, failed
from pophood.errors import BadInput, EngineError, NotFound, Unsupported, one_line
from pophood.generate.scheduler import TOGETHER
from pophood.model.memory import plan_memory
from pophood.system import size_text

MOST_TEXTS = 16  # lines of a block for each text that is written at a time
PARTS = 4  # of what is left, for each actor: blocks become smaller towards the end
TICK = 0.2  # seconds between two looks at the progress
LOOK_EVERY = 2.0  # seconds between two looks at the nodes
TRIES = 3  # runs in a row that end without an answer


@dataclass(frozen=True, slots=True)
class RayNode:
    """A living node of the cluster."""

    id: str
    host: str
    cpus: int
    memory: int


class RayAnswering:
    """Answers lines on the machines of a Ray cluster; it is used as `Answering` is.

    with RayAnswering("auto", RayModel("smollm2"), BatchModel(lm, defaults), say=print) as answering:
        for record in answering.records(source):
            answers.write(record)
    """

    def __init__(
        self,
        address: str,
        place: RayModel,
        model: BatchModel,
        *,
        threads: int | None = None,
        together: int = TOGETHER,
        ids: CustomIds | None = None,
        say: Callable[[str], object],
    ) -> None:
        """Connect, and check that every node has the same model; `model` needs no weights.

        `threads` are those of each node; the default is what all nodes have. Raises NotFound, BadFile,
        BadInput, Unsupported.
        """
        self.tally = Tally()
        self._place, self._model, self._say = place, model, say
        self._together, self._ids = together, ids or CustomIds()
        self._ray = _connect(address, say)
        try:
            self._driver = report_of(model)
            self._threads = self._check(threads)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End what was started in the cluster, or the cluster if `local` started it."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- nodes ----

    def _nodes(self) -> list[RayNode]:
        """Return the living nodes."""
        return [
            RayNode(
                one["NodeID"],
                one["NodeManagerHostname"] or one["NodeManagerAddress"],
                int(one["Resources"].get("CPU", 0)),
                int(one["Resources"].get("memory", 0)),
            )
            for one in self._ray.nodes()
            if one["Alive"]
        ]

    def _check(self, threads: int | None) -> int:
        """Check every node, say what they are, and return the threads of each actor."""
        nodes = self._nodes()
        reports = [self._report(node) for node in nodes]
        if threads is None:
            cores = [min(node.cpus, report.threads) for node, report in zip(nodes, reports, strict=True)]
            threads = min([n for n in cores if n] or [1])
        self._threads, self._known, self._looked = threads, nodes, time.monotonic()
        able = self._able(nodes)
        for node in nodes:
            if node not in able:
                self._say(f"{node.host} takes no lines: {self._lacks(node)}")
        if not able:
            raise BadInput("no node of the cluster can take lines: see above")
        hosts = ", ".join(node.host for node in able)
        self._say(
            f"the model is the same on {hosts} (SHA-256 of every file); threads of each: {self._threads}"
        )
        return threads

    def _report(self, node: RayNode) -> NodeReport:
        """Let a node examine its copy of the model, and compare."""
        affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
        task = self._ray.remote(examine).options(num_cpus=0, max_retries=0, scheduling_strategy=affinity)
        try:
            report = self._ray.get(task.remote(self._place))
        except self._ray.exceptions.RayError as error:
            raise NotFound(
                f"{node.host}: cannot run pophood there ({_reason(error)}): install the same version with "
                "pip install 'pophood[ray]'"
            ) from error
        if isinstance(report, str):
            raise NotFound(f"{node.host}: {report}")
        assert isinstance(report, NodeReport)
        self._driver.check(report)
        return report

    def _able(self, nodes: list[RayNode]) -> list[RayNode]:
        return [node for node in nodes if self._lacks(node) is None]

    def _lacks(self, node: RayNode) -> str | None:
        """Return what a node has too little of; None if it has enough."""
        if node.cpus < self._threads:
            return f"Ray has {node.cpus} CPUs there, and {self._threads} threads are to compute"
        if node.memory < self._memory:
            return (
                f"Ray has {size_text(node.memory)} of memory there, and {size_text(self._memory)} are needed"
            )
        return None

    @property
    def _memory(self) -> int:
        """Bytes that an actor needs: the weights and one window, as `MemoryPlan` has them."""
        lm = self._model.lm
        engine = lm.engine
        kept = lm.weights.stored_type
        return plan_memory(lm.config, kept, engine.context, engine.precision, engine.kv).full

    # ---- lines ----

    def records(
        self, source: RequestLines, progress: Callable[[Tally], object] | None = None
    ) -> Iterator[Record]:
        """Yield the answer of every line, in order. `progress` is called several times a second.

        All lines are read first. Raises KeyboardInterrupt, PophoodError; `close` must follow.
        """
        tell = progress or (lambda _: None)
        order = InOrder()
        waiting = self._read(source, order)
        tries = 0
        while True:
            for record in order.ready():
                yield self._leaves(record)
            if order.next is None:
                return
            left = [row for row in waiting if row[0] >= order.next]
            before = self.tally.lines
            try:
                for record in self._run(left, tell):
                    if order.add(record):
                        for ready in order.ready():
                            yield self._leaves(ready)
            except _lost_errors(self._ray) as error:
                tries = 0 if self.tally.lines > before else tries + 1
                if tries == TRIES:
                    raise EngineError(
                        f"line {order.next:,} was begun {TRIES} times and not answered ({_reason(error)}): "
                        "the same command goes on with it"
                    ) from error
                self._say(f"a part of the cluster was lost ({_reason(error)}); going on with the rest")

    def _leaves(self, record: Record) -> Record:
        self.tally.lines += 1
        self.tally.failed += failed(record)
        return record

    def _read(self, source: RequestLines, order: InOrder) -> list[tuple[int, bytes]]:
        """Read all lines; those that no model is needed for are answered here."""
        rows = []
        while (line := source.next()) is not None:
            order.expect(line.number)
            early = early_answer(line, self._model.defaults.seed, self._ids)
            if early is not None:
                order.add(early)
            else:
                assert line.data is not None
                rows.append((line.number, line.data))
        return rows

    def _run(self, rows: list[tuple[int, bytes]], progress: Callable[[Tally], object]) -> Iterator[Record]:
        """Yield answers as they arrive, in any order. Raises the errors of the cluster."""
        arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        dataset = self._dataset(rows)

        def receive() -> None:
            try:
                for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                    arrived.put(batch.to_pylist())
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)

        # A thread of its own, so that Ctrl-C and the progress need not wait for an answer.
        threading.Thread(target=receive, name="answers", daemon=True).start()
        while True:
            progress(self.tally)
            self._tell_of_losses()
            try:
                answers = arrived.get(timeout=TICK)
            except queue.Empty:
                continue
            if answers is None:
                return
            if isinstance(answers, BaseException):
                raise answers
            for answer in answers:
                self.tally.read += answer["read"]
                self.tally.written += answer["written"]
                yield json.loads(answer["answer"])

    def _tell_of_losses(self) -> None:
        """Say which nodes are gone, a few times a minute."""
        if time.monotonic() < self._looked + LOOK_EVERY:
            return
        self._looked, alive = time.monotonic(), self._nodes()
        for node in self._known:
            if node not in alive:
                self._say(f"{node.host} is gone: others compute what it had not sent")
        self._known = alive

    def _dataset(self, rows: list[tuple[int, bytes]]) -> Any:
        """Return the dataset of the answers, which Ray computes when it is read."""
        import pyarrow

        ray = self._ray
        nodes = self._able(self._nodes())
        if not nodes:
            raise NotFound("no node of the cluster is left: the same command goes on when there are some")
        blocks = []
        start = 0
        for size in block_sizes(len(rows), len(nodes), self._together):
            part = rows[start : start + size]
            numbers = pyarrow.array([number for number, _ in part], pyarrow.int64())
            lines = pyarrow.array([data for _, data in part], pyarrow.large_binary())
            blocks.append(ray.put(pyarrow.table({"number": numbers, "line": lines})))
            start += size
        actors = min(len(nodes), len(blocks))
        return ray.data.from_arrow_refs(blocks).map_batches(
            RayLines,
            fn_constructor_args=(self._place,),
            fn_constructor_kwargs={
                "threads": self._threads,
                "defaults": self._model.defaults,
                "aliases": self._model.served.aliases,
                "together": self._together,
                "driver": self._driver,
                "fingerprint": self._model.fingerprint,
            },
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
            num_cpus=self._threads,
            memory=self._memory,
        )


def block_sizes(lines: int, actors: int, together: int) -> Iterator[int]:
    """Yield how many lines each block has: fewer towards the end, so that all actors end at a time.

    >>> list(block_sizes(300, 2, 4))
    [37, 32, 28, 25, 22, 19, 17, 15, 13, 11, 10, 8, 7, 7, 6, 5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2]
    """
    while lines:
        size = min(lines, max(together, min(MOST_TEXTS * together, lines // (PARTS * actors))))
        yield size
        lines -= size


def _ray() -> Any:
    """Import Ray, which counts its uses over the network unless this variable is set before."""
    require_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    import ray.data
    import ray.util.scheduling_strategies

    return ray


def _connect(address: str, say: Callable[[str], object]) -> Any:
    """Connect to a cluster, or start one on this machine for "local"; return the module. Raises NotFound."""
    if address.startswith("ray://"):
        raise Unsupported(
            f"--ray {address}: Ray Data is not reliable through Ray Client: run the command on a machine of "
            "the cluster, with --ray auto or HOST:PORT"
        )
    ray = _ray()
    say(f"connecting to Ray: {address}")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        say("Ray listens on every network of this machine: whoever reaches its ports can run code here")
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise NotFound(
            f"--ray {address}: no cluster ({one_line(error)}): start one with `ray start --head`, or name "
            "another address"
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every answer leaves its actor at once
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def _lost_errors(ray: Any) -> tuple[type[Exception], ...]:
    """Return the errors of a cluster that lost a part."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.ActorUnavailableError,
        errors.ActorUnschedulableError,
        errors.ObjectLostError,
        errors.NodeDiedError,
        errors.WorkerCrashedError,
        errors.OutOfMemoryError,
    )


def _reason(error: Exception) -> str:
    return one_line(error)[:200]
