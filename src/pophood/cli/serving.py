"""Putting a server together: a model's process, the routes behind their guards, and what it tells.

`cli/commands/serve.py` parses, `cli/screens/serve.py` prints; `pophood.serve` has the parts. The engine is in
another process, and nothing here imports it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from pophood import __version__
from pophood.adapters.open import template_of
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Waiting
from pophood.errors import one_line
from pophood.model.bundle import open_bundle
from pophood.openai.model import MOST_SAMPLES, ServedAdapter, ServedModel, fingerprint
from pophood.serve.app import build_app
from pophood.serve.guard import guarded_app
from pophood.serve.guard.access import Access
from pophood.serve.guard.listening import Listening
from pophood.serve.guard.security import Rules
from pophood.serve.metrics import Metrics
from pophood.serve.process.records import LoadOrder
from pophood.serve.process.supervisor import EngineProcess
from pophood.serve.server import GRACE, HttpServer, Life
from pophood.system.programs import is_running
from pophood.text.chat.chat_template import ChatTemplate


@dataclass(frozen=True, slots=True)
class Wishes:
    """Options of a server, checked where they are used."""

    parallel: int
    aliases: tuple[str, ...] = ()
    grace: float = GRACE


class Serving:
    """A server that is ready to `run`. `ready` is called when it accepts connections."""

    def __init__(
        self,
        console: Console,
        engine: EngineProcess,
        model: ServedModel,
        listening: Listening,
        rules: Rules,
        wishes: Wishes,
        ready: Callable[[], object],
    ) -> None:
        self._console, self._engine, self.model = console, engine, model
        self.client = engine.client
        self.metrics = Metrics(self.model.name, __version__)
        app = guarded_app(
            build_app(self.client, self.model, metrics=self._figures),
            rules,
            ended=self._note,
            broken=self._report,
        )
        self.http = HttpServer(app, ready=ready)
        self.life = Life(
            self.http, listening, engine, say=console.say, notice=self._notice_tuning, grace=wishes.grace
        )
        self._all_threads = engine.facts.threads
        self._tuning = False

    def run(self) -> int:
        """Serve until a signal ends it; return the exit code."""
        return self.life.run()

    def _figures(self) -> str:
        return self.metrics.text(
            self.client.gauges,
            up=self.client.fault is None,
            open_connections=self.http.open_connections,
            restarts=self._engine.restarts,
        )

    def _note(self, access: Access) -> None:
        self.metrics.note(access)
        self._console.detail(access.line(self.model.name))

    def _report(self, request_id: str, error: Exception) -> None:
        what = f"{type(error).__name__}: {one_line(error)}"
        self._console.say(
            f"a bug in pophood, please report it: request {request_id}: {what} (-v shows where)"
        )
        self._console.detail("".join(traceback.format_exception(error)))

    def _notice_tuning(self) -> None:
        """Leave a thread to `pophood tune` while one runs."""
        tuning = is_running("tune")
        if tuning == self._tuning or self._all_threads == 1:
            return
        self._tuning = tuning
        threads = self._all_threads - tuning
        self._engine.use_threads(threads)
        why = "`pophood tune` is running" if tuning else "`pophood tune` has ended"
        self._console.say(f"{why}: computing with {threads} of {self._all_threads} threads")


def load_engine(console: Console, engine: EngineProcess, order: LoadOrder, wishes: Wishes) -> ServedModel:
    """Let a process load a model, with its progress, and return what the HTTP side knows of it.

    Prints the model's name, precision and file on stderr. Raises PophoodError, for what the process refuses.
    """
    engine.start()
    with Waiting(console, f"loading {order.name}") as waiting:
        bundle = open_bundle(order.path)  # meanwhile
        adapters = {name: template_of(place) for name, place in order.adapters}
        facts = engine.wait(waiting)
    for words in facts.remarks:
        console.say(words)
    for words in facts.details:
        console.detail(words)
    tokenizer = bundle.tokenizer
    return ServedModel(
        name=facts.public_name,
        tokenizer=tokenizer,
        template=bundle.chat_template,
        window=facts.capacity.context,
        vocab_size=facts.vocab_size,
        fingerprint=fingerprint(__version__, facts.digest, facts.precision, facts.isa),
        aliases=wishes.aliases,
        adapters={
            name: ServedAdapter(name, None if own is None else ChatTemplate(own, names=tokenizer.names))
            for name, own in adapters.items()
        },
        most_samples=min(wishes.parallel, MOST_SAMPLES),
        trained_window=facts.trained_window,
        blocks=facts.capacity.blocks,
        parameters=facts.parameters,
        layers=facts.layers,
        heads=facts.heads,
    )
