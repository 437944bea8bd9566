"""Putting a server together: a loaded model, its worker, the routes behind their guards, and what it tells.

`cli/commands/serve.py` parses, `cli/screens/serve.py` prints; `pophood.serve` has the parts.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pophood import __version__
from pophood.adapters.adapter import Adapter
from pophood.adapters.open import open_adapter, template_of
from pophood.cli.terminal.console import Console
from pophood.errors import one_line
from pophood.model.identity import kv_identity, public_name, weights_digest
from pophood.model.prefix_files import CHUNK, PrefixFiles
from pophood.openai.model import MOST_SAMPLES, ServedAdapter, ServedModel, fingerprint
from pophood.serve.app import build_app
from pophood.serve.capacity import Capacity
from pophood.serve.client import EngineClient
from pophood.serve.guard import guarded_app
from pophood.serve.guard.access import Access
from pophood.serve.guard.connections import CONNECTIONS
from pophood.serve.guard.listening import Listening
from pophood.serve.guard.security import Rules
from pophood.serve.messages import UseThreads
from pophood.serve.metrics import Metrics
from pophood.serve.protocol.replies import MOST_OPEN
from pophood.serve.server import GRACE, HttpServer, Life
from pophood.serve.worker import Worker
from pophood.system.programs import is_running
from pophood.text.chat.chat_template import ChatTemplate

if TYPE_CHECKING:
    from pophood.model.lm import LM


@dataclass(frozen=True, slots=True)
class Wishes:
    """Options of a server, checked where they are used."""

    parallel: int
    aliases: tuple[str, ...] = ()
    adapters: tuple[tuple[str, str], ...] = ()  # name and place
    files: PrefixFiles | None = None
    grace: float = GRACE


class Serving:
    """A server that is ready to `run`. `ready` is called when it accepts connections."""

    def __init__(
        self,
        console: Console,
        lm: LM,
        capacity: Capacity,
        listening: Listening,
        rules: Rules,
        wishes: Wishes,
        ready: Callable[[], object],
    ) -> None:
        self._console, self._lm = console, lm
        opened = {name: open_adapter(place, lm.config) for name, place in wishes.adapters}
        self.model = served_model(lm, capacity, wishes)
        self._worker = _worker_of(lm, capacity, wishes, opened)
        self.client = EngineClient(self._worker.post)
        self.metrics = Metrics(self.model.name, __version__)
        app = guarded_app(
            build_app(self.client, self.model, metrics=self._figures),
            rules,
            ended=self._note,
            broken=self._report,
        )
        self.http = HttpServer(app, ready=ready)
        self.life = Life(
            self.http,
            listening,
            self.client,
            self._worker,
            say=console.say,
            notice=self._notice_tuning,
            grace=wishes.grace,
        )
        self._all_threads = lm.engine.threads
        self._tuning = False

    def run(self) -> int:
        """Serve until a signal ends it; return the exit code."""
        return self.life.run()

    def _figures(self) -> str:
        return self.metrics.text(
            self.client.gauges, up=self.client.fault is None, open_connections=self.http.open_connections
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
        self._worker.post(UseThreads(threads))
        why = "`pophood tune` is running" if tuning else "`pophood tune` has ended"
        self._console.say(f"{why}: computing with {threads} of {self._all_threads} threads")


def _worker_of(lm: LM, capacity: Capacity, wishes: Wishes, adapters: Mapping[str, Adapter]) -> Worker:
    return Worker(
        lm.engine,
        lm.bundle.tokenizer,
        blocks=capacity.blocks,
        together=wishes.parallel,
        adapters=adapters,
        waiting=MOST_OPEN + CONNECTIONS,  # the HTTP side refuses before: here it would be too late for a 429
        files=wishes.files,
    )


def prefix_files(console: Console, lm: LM, folder: Path, limit: int) -> PrefixFiles:
    """Return the stored prefixes of a model. Raises PophoodError, BadInput for a folder that is not right."""
    return PrefixFiles(
        folder.absolute(), kv_identity(lm), CHUNK * lm.engine.position_bytes, limit, say=console.say
    )


def served_model(lm: LM, capacity: Capacity, wishes: Wishes) -> ServedModel:
    """Return what the HTTP side knows of a model."""
    names = lm.bundle.tokenizer.names
    adapters = {}
    for name, place in wishes.adapters:
        own = template_of(place)
        adapters[name] = ServedAdapter(name, None if own is None else ChatTemplate(own, names=names))
    return ServedModel(
        name=public_name(lm),
        tokenizer=lm.bundle.tokenizer,
        template=lm.chat_template,
        window=capacity.context,
        vocab_size=lm.config.vocab_size,
        fingerprint=fingerprint(__version__, weights_digest(lm.path), lm.engine.precision, lm.engine.isa),
        aliases=wishes.aliases,
        adapters=adapters,
        most_samples=min(wishes.parallel, MOST_SAMPLES),
        trained_window=lm.config.n_positions,
        blocks=capacity.blocks,
        parameters=lm.n_params,
        layers=lm.config.n_layer,
        heads=lm.config.n_head,
    )
