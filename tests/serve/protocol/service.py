"""The app on a real worker, asked without a socket: an event loop in a thread, and ASGI calls into it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from openai import OpenAI

import pophood
from pophood.adapters.adapter import Adapter
from pophood.openai.model import ServedAdapter, ServedModel
from pophood.serve.app import build_app
from pophood.serve.client import EngineClient
from pophood.serve.guard.connections import GuardedProtocol
from pophood.serve.guard.listening import listen
from pophood.serve.messages import Drain, Event
from pophood.serve.server import HttpServer
from pophood.serve.worker import Worker
from tests.processes import HANG_SECONDS

BLOCKS = 2048
LOCAL = "127.0.0.1"
T = TypeVar("T")


@dataclass(slots=True)
class Told:
    """An answer as its client received it: the status, the headers, and each write of the body."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    writes: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape, which is checked."""
        error: dict[str, Any] = self.json["error"]
        assert error.keys() >= {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert isinstance(error["type"], str)
        assert isinstance(error["param"], str | None)
        assert isinstance(error["code"], str | None)
        assert "\n" not in error["message"]
        return error


class Asking:
    """One request that is under way. `leave` breaks its connection."""

    def __init__(self, method: str, path: str, body: bytes | None) -> None:
        self.told = Told()
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8321),
        }
        self._body = body
        self._left = asyncio.Event()
        self.wrote = asyncio.Event()  # set by every write

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        told = self.told
        assert not told.ended
        if message["type"] == "http.response.start":
            assert not told.status
            told.status = message["status"]
            told.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert told.status
            told.writes.append(message.get("body", b""))
            told.ended = not message.get("more_body", False)
        self.wrote.set()

    def leave(self) -> None:
        self._left.set()


class Service:
    """A model, its worker and its app; `ask` it."""

    def __init__(
        self,
        lm: pophood.LM,
        *,
        adapters: Mapping[str, Adapter] | None = None,
        served: Mapping[str, Any] | None = None,
        blocks: int = BLOCKS,
        together: int = 16,
        **settings: Any,
    ) -> None:
        self.lm = lm
        tokenizer = lm.bundle.tokenizer
        self.served = ServedModel(
            **{
                "name": "tiny/random",
                "tokenizer": tokenizer,
                "template": lm.chat_template,
                "window": lm.engine.context,
                "vocab_size": lm.config.vocab_size,
                "fingerprint": "pophood-test",
                "aliases": ("tiny",),
                "adapters": {name: ServedAdapter(name) for name in adapters or {}},
                "most_samples": together,
                "layers": lm.config.n_layer,
                "heads": lm.config.n_head,
                **(served or {}),
            }
        )
        self.worker = Worker(lm.engine, tokenizer, blocks=blocks, together=together, adapters=adapters)
        self.client = EngineClient(self.worker.post)
        self.app = build_app(self.client, self.served, **settings)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop")

    def __enter__(self) -> Self:
        def deliver(events: Sequence[Event]) -> None:
            self.loop.call_soon_threadsafe(self.client.receive, events)

        def ended(why: str) -> None:
            self.loop.call_soon_threadsafe(self.client.worker_ended, why)

        self._thread.start()
        self.worker.start(deliver, ended)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.post(Drain())
        self.worker.join(HANG_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(HANG_SECONDS)
        self.loop.close()

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Serve at a port of this machine, without keys, and give the port."""
        ready = threading.Event()
        server = HttpServer(self.app, GuardedProtocol, ready.set)
        opened = listen(LOCAL, 0)
        ended = asyncio.run_coroutine_threadsafe(server.serve(sockets=[opened.socket]), self.loop)
        assert ready.wait(HANG_SECONDS)
        try:
            yield opened.port
        finally:
            server.should_exit = True
            ended.result(HANG_SECONDS)

    @contextmanager
    def openai_client(self) -> Iterator[OpenAI]:
        """Serve at a port of this machine, and give a client of openai's library."""
        with (
            self.listening() as port,
            OpenAI(base_url=f"http://{LOCAL}:{port}/v1", api_key="none", timeout=300) as client,
        ):
            yield client

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, HANG_SECONDS), self.loop).result()

    def ask(self, path: str, body: Any = None, *, method: str | None = None) -> Told:
        """Send a request, and return all that it gave; `body` is JSON, or bytes as they are."""
        return self.run(self.asked(path, body, method=method))

    def ask_all(self, requests: Sequence[tuple[str, Any]]) -> list[Told]:
        """Send requests at the same time."""

        async def all_of_them() -> list[Told]:
            return list(await asyncio.gather(*(self.asked(path, body) for path, body in requests)))

        return self.run(all_of_them())

    async def asked(self, path: str, body: Any = None, *, method: str | None = None) -> Told:
        asking, call = self.begin(path, body, method=method)
        await call
        return asking.told

    def begin(
        self, path: str, body: Any = None, *, method: str | None = None
    ) -> tuple[Asking, asyncio.Future[None]]:
        """Begin a request, in the loop's thread."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        asking = Asking(method or ("GET" if body is None else "POST"), path, content or b"")
        return asking, asyncio.ensure_future(self.app(asking.scope, asking.receive, asking.send))

    # ---- the two routes that compute ----

    def chat(self, text: str = "Hi", **fields: Any) -> Told:
        return self.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]} | fields)

    def complete(self, prompt: Any = "Once upon", **fields: Any) -> Told:
        return self.ask("/v1/completions", {"prompt": prompt} | fields)
