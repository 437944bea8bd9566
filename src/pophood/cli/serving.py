"""Putting a server together: a model's process, the routes behind their guards, and what it tells.

`cli/commands/serve.py` parses, `cli/screens/serve.py` prints; `pophood.serve` has the parts. The engine is in
another process, and nothing here imports it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from pophood import __version__, hub
from pophood.adapters.open import template_of
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Waiting
from pophood.errors import one_line
from pophood.model.bundle import Bundle, open_bundle
from pophood.openai.model import MOST_SAMPLES, ServedAdapter, ServedModel, fingerprint
from pophood.serve.app import App, build_app
from pophood.serve.guard import guarded_app
from pophood.serve.guard.access import Access
from pophood.serve.guard.listening import Listening
from pophood.serve.guard.security import Rules
from pophood.serve.metrics import Metrics
from pophood.serve.ollama.app import build_ollama_app
from pophood.serve.process.fleet import Fleet
from pophood.serve.process.records import LoadedFacts, LoadOrder
from pophood.serve.process.supervisor import EngineProcess
from pophood.serve.server import GRACE, HttpServer, Life
from pophood.system.programs import is_running
from pophood.text.chat.chat_template import ChatTemplate


@dataclass(frozen=True, slots=True)
class Wishes:
    """Options of a server, checked where they are used.

    At most `most` models are in memory at once; one without requests for `idle` seconds leaves it. `ollama`
    is the port of Ollama's protocol. `extend` adds routes to the app, and says where uploads go.
    """

    parallel: int
    aliases: tuple[str, ...] = ()
    most: int = 1
    idle: float | None = None
    ollama: Listening | None = None
    grace: float = GRACE
    extend: Callable[[App, Fleet], Collection[str]] = lambda *_: ()


class Serving:
    """A server that is ready to `run`, with a first model, which `order` loaded into `engine`.

    `ready` is called when it accepts connections.
    """

    def __init__(
        self,
        console: Console,
        engine: EngineProcess,
        order: LoadOrder,
        model: ServedModel,
        listening: Listening,
        rules: Rules,
        wishes: Wishes,
        ready: Callable[[], object],
    ) -> None:
        self._console, self.model = console, model
        self.fleet = Fleet(
            model,
            engine,
            find_order=partial(order_for, order),
            describe=partial(described, wishes=wishes),
            most=wishes.most,
            idle=wishes.idle,
            say=console.say,
            detail=console.detail,
        )
        self.metrics = Metrics(self.model.name, __version__)
        routes = build_app(engine.client, model, catalog=self.fleet, metrics=self._figures)
        app = guarded_app(
            routes,
            rules,
            uploads=wishes.extend(routes, self.fleet),
            ended=self._note,
            broken=self._report,
        )
        self.http = HttpServer(app, ready=ready)
        self.life = Life(
            self.http,
            listening,
            self.fleet,
            say=console.say,
            notice=self._look,
            grace=wishes.grace,
            others=() if wishes.ollama is None else ((self._ollama(rules), wishes.ollama),),
        )
        self._all_threads = engine.facts.threads
        self._tuning = False

    def _ollama(self, rules: Rules) -> HttpServer:
        """Return the server of Ollama's port, where no key is asked; the other rules hold."""
        app = build_ollama_app(self.fleet)
        open_rules = Rules(rules.key, rules.hosts, rules.origins, keyless=True)
        return HttpServer(guarded_app(app, open_rules, ended=self._note, broken=self._report))

    def run(self) -> int:
        """Serve until a signal ends it; return the exit code."""
        return self.life.run()

    def _figures(self) -> str:
        return self.metrics.text(
            self.fleet.gauges,
            up=self.fleet.fault is None,
            open_connections=self.http.open_connections,
            restarts=self.fleet.restarts,
            loaded=self.fleet.loaded,
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

    def _look(self) -> None:
        self.fleet.look()
        self._notice_tuning()

    def _notice_tuning(self) -> None:
        """Leave a thread to `pophood tune` while one runs."""
        tuning = is_running("tune")
        if tuning == self._tuning or self._all_threads == 1:
            return
        self._tuning = tuning
        threads = self._all_threads - tuning
        self.fleet.use_threads(threads)
        why = "`pophood tune` is running" if tuning else "`pophood tune` has ended"
        self._console.say(f"{why}: computing with {threads} of {self._all_threads} threads")


def serve(
    console: Console,
    order: LoadOrder,
    listening: Listening,
    rules: Rules,
    wishes: Wishes,
    ready: Callable[[LoadedFacts, ServedModel], object],
) -> int:
    """Load the model in a process of its own, serve it until a signal, and return the exit code.

    `ready` is called when connections are accepted. Raises PophoodError, for what the process refuses.
    """
    engine = EngineProcess(order, say=console.say, detail=console.detail)
    try:
        model = load_engine(console, engine, order, wishes)

        def accepted() -> None:
            ready(engine.facts, model)

        return Serving(console, engine, order, model, listening, rules, wishes, accepted).run()
    finally:
        engine.end(0)


def load_engine(console: Console, engine: EngineProcess, order: LoadOrder, wishes: Wishes) -> ServedModel:
    """Let a process load a model, with its progress, and return what the HTTP side knows of it.

    Prints the model's name, precision and file on stderr. Raises PophoodError, for what the process refuses.
    """
    engine.start()
    with Waiting(console, f"loading {order.name}") as waiting:
        bundle = open_bundle(order.path)  # meanwhile
        facts = engine.wait(waiting)
    for words in facts.remarks:
        console.say(words)
    for words in facts.details:
        console.detail(words)
    return replace(described(order, facts, wishes=wishes, bundle=bundle), aliases=wishes.aliases)


def described(
    order: LoadOrder, facts: LoadedFacts, *, wishes: Wishes, bundle: Bundle | None = None
) -> ServedModel:
    """Return what the HTTP side knows of a model: the facts of its process, and its tokenizer's files."""
    bundle = bundle or open_bundle(order.path)
    names = bundle.tokenizer.names
    adapters = {}
    for name, place in order.adapters:
        own = template_of(place)
        adapters[name] = ServedAdapter(name, None if own is None else ChatTemplate(own, names=names))
    return ServedModel(
        name=facts.public_name,
        tokenizer=bundle.tokenizer,
        template=bundle.chat_template,
        window=facts.capacity.context,
        vocab_size=facts.vocab_size,
        fingerprint=fingerprint(__version__, facts.digest, facts.precision, facts.isa),
        aliases=() if order.name == facts.public_name else (order.name,),
        adapters=adapters,
        most_samples=min(wishes.parallel, MOST_SAMPLES),
        trained_window=facts.trained_window,
        blocks=facts.capacity.blocks,
        kv=facts.capacity.kv,
        parameters=facts.parameters,
        layers=facts.layers,
        heads=facts.heads,
        architecture=bundle.config.architecture,
        weight_bytes=facts.weight_bytes,
    )


def order_for(first: LoadOrder, name: str) -> LoadOrder | None:
    """Return how to load another model of `pophood list`: as the first one, in its own window."""
    found = next((one for one in hub.list_models() if one.name == name), None)
    if found is None:
        return None
    return replace(first, name=found.name, path=found.path, context=None, adapters=())
