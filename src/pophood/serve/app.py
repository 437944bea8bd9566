"""build_app: every route of the server, from the client of the worker and the model that it computes.

FastAPI matches routes and writes OpenAPI; bodies are read by `protocol.schemas`, answers are ASGI responses
of our own. Keys, Host rules and limits are put around the app by `guard`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pophood.openai import chat, completions
from pophood.openai.asked import Asked
from pophood.openai.errors import INVALID, MISSING, SERVER, ApiError
from pophood.openai.model import ServedModel
from pophood.openai.requests import ChatFields, CompletionFields
from pophood.openai.responses import request as responses
from pophood.serve.catalog import Catalog, HostedModel, OneModel
from pophood.serve.client import EngineClient
from pophood.serve.guard.access import present
from pophood.serve.openapi import described_app, operation
from pophood.serve.protocol.answering import SILENCE, answer
from pophood.serve.protocol.replies import MOST_OPEN
from pophood.serve.protocol.response_fields import ResponsesRequest
from pophood.serve.protocol.responses import Json, refusal
from pophood.serve.protocol.schemas import (
    Body,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingsRequest,
    ModelRequest,
    TokenizeRequest,
    fields_of,
    read_body,
)
from pophood.serve.routes import embeddings, models, start, status, tokenizing

READERS = 2  # threads that read bodies, render conversations and encode texts, beside the loop
App: TypeAlias = FastAPI  # for those who may not know the library
BodyT = TypeVar("BodyT", bound=Body)
ResultT = TypeVar("ResultT")


class Desk:
    """Reads requests for models, beside the event loop, which goes on writing other answers meanwhile."""

    def __init__(self, catalog: Catalog, most_open: int, silence: float) -> None:
        self._catalog = catalog
        self._most_open, self._silence = most_open, silence
        self._readers = ThreadPoolExecutor(READERS, "read-request")
        self._readers.submit(catalog.find(None).served.warm_up)

    async def read(
        self, request: Request, kind: type[BodyT], use: Callable[[BodyT, ServedModel], ResultT]
    ) -> ResultT:
        """Return `use(the request in the body, its model)`. Raises ApiError."""
        return (await self._read(request, kind, use))[1]

    async def _read(
        self, request: Request, kind: type[BodyT], use: Callable[[BodyT, ServedModel], ResultT]
    ) -> tuple[HostedModel, ResultT]:
        body, access = await request.body(), present()

        def work() -> tuple[HostedModel, ResultT]:
            asked = read_body(body, kind)
            hosted = self._catalog.find(asked.model)
            if access is not None:
                access.model = hosted.served.name
            return hosted, use(asked, hosted.served)

        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def chat(self, request: Request) -> Response:
        return self._answer(*await self._read(request, ChatRequest, _chat))

    async def completion(self, request: Request) -> Response:
        return self._answer(*await self._read(request, CompletionRequest, _completion))

    async def response(self, request: Request) -> Response:
        return self._answer(*await self._read(request, ResponsesRequest, _response))

    async def render(self, request: Request) -> Response:
        return Json(await self.read(request, ChatRequest, _rendered))

    async def tokenize(self, request: Request) -> Response:
        return Json(await self.read(request, TokenizeRequest, tokenizing.tokenize))

    async def detokenize(self, request: Request) -> Response:
        return Json(await self.read(request, DetokenizeRequest, tokenizing.detokenize))

    async def embed(self, request: Request) -> Response:
        hosted, asked = await self._read(request, EmbeddingsRequest, embeddings.asked)
        return embeddings.embed(asked, hosted.client, most_open=self._most_open)

    async def load(self, request: Request) -> Response:
        await self._catalog.load(read_body(await request.body(), ModelRequest).model)
        return Json({"success": True})

    async def unload(self, request: Request) -> Response:
        await self._catalog.unload(read_body(await request.body(), ModelRequest).model)
        return Json({"success": True})

    async def tokenizer_info(self) -> Response:
        return Json(tokenizing.tokenizer_info(self._catalog.find(None).served))

    async def page(self) -> Response:
        return start.start(self._catalog.find(None).served)

    @property
    def posts(self) -> Mapping[str, tuple[Callable[..., Any], type[Body]]]:
        """The routes that read a body: what answers, and what the body is."""
        return {
            "/v1/chat/completions": (self.chat, ChatRequest),
            "/v1/chat/completions/render": (self.render, ChatRequest),
            "/v1/completions": (self.completion, CompletionRequest),
            "/v1/embeddings": (self.embed, EmbeddingsRequest),
            "/v1/responses": (self.response, ResponsesRequest),
            "/models/load": (self.load, ModelRequest),
            "/models/unload": (self.unload, ModelRequest),
            "/tokenize": (self.tokenize, TokenizeRequest),
            "/v1/tokenize": (self.tokenize, TokenizeRequest),
            "/detokenize": (self.detokenize, DetokenizeRequest),
            "/v1/detokenize": (self.detokenize, DetokenizeRequest),
        }

    def _answer(self, hosted: HostedModel, asked: Asked) -> Response:
        return answer(asked, hosted.client, most_open=self._most_open, silence=self._silence)


def build_app(
    client: EngineClient,
    served: ServedModel,
    *,
    catalog: Catalog | None = None,
    metrics: Callable[[], str] | None = None,
    most_open: int = MOST_OPEN,
    silence: float = SILENCE,
) -> FastAPI:
    """Return the app with all routes of the protocol.

    `client` and `served` are those of the first model; `catalog` has all, if there can be more. `metrics`
    gives the text of /metrics. With `most_open` requests at a worker, further ones get 429. A stream is never
    silent for more than `silence` seconds.
    """
    app = described_app()
    every = catalog or OneModel(served, client)
    desk = Desk(every, most_open, silence)

    async def list_models() -> Response:
        return Json(models.listed(every))

    async def one_model(model: str) -> Response:
        return Json(models.one(model, every))

    async def health() -> Response:
        return status.health(client)

    async def metrics_text() -> Response:
        return status.metrics(metrics)

    for path, (endpoint, kind) in desk.posts.items():
        app.add_api_route(path, endpoint, methods=["POST"], **operation(path, kind))

    gets: Mapping[str, Callable[..., Any]] = {
        "/v1/models": list_models,
        "/v1/models/{model:path}": one_model,
        "/tokenizer_info": desk.tokenizer_info,
        "/v1/tokenizer_info": desk.tokenizer_info,
        "/health": health,
        "/metrics": metrics_text,
    }
    for path, endpoint in gets.items():
        app.add_api_route(path, endpoint, methods=["GET"], **operation(path))
    app.add_api_route("/", desk.page, methods=["GET"], include_in_schema=False)
    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(Exception, _broken)


def _chat(request: ChatRequest, served: ServedModel) -> Asked:
    return chat.asked_of(fields_of(request, ChatFields), served)


def _completion(request: CompletionRequest, served: ServedModel) -> Asked:
    return completions.asked_of(fields_of(request, CompletionFields), served)


def _response(request: ResponsesRequest, served: ServedModel) -> Asked:
    return responses.asked_of(fields_of(request, responses.ResponseFields), served)


def _rendered(request: ChatRequest, served: ServedModel) -> dict[str, Any]:
    return chat.render(fields_of(request, ChatFields), served)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refusal(error)


async def _unrouted(request: Request, error: Exception) -> Response:
    """Answer 404 and 405 in the shape of all errors."""
    assert isinstance(error, HTTPException)
    kind = MISSING if error.status_code == 404 else INVALID
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    response = refusal(ApiError(error.status_code, message, kind))
    response.headers.update(error.headers or {})
    return response


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _broken(_: Request, __: Exception) -> Response:
    """Answer what no other handler knows; the error itself goes on to the outermost guard."""
    return refusal(ApiError(500, "a bug in pophood", SERVER, code="internal_error"))
