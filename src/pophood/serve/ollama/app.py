"""The app of the second port: Ollama's routes to find and use the model, and those of OpenAI beside them.

VS Code's provider for Ollama asks `/api/version`, `/api/tags` and `/api/show`, and then chats at
`/v1/chat/completions` of the same port. No key is asked here, which is why the port is a loopback one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from pophood.openai.asked import Asked
from pophood.openai.errors import INVALID, MISSING, ApiError
from pophood.openai.model import ServedModel
from pophood.serve.app import Desk
from pophood.serve.catalog import Catalog, HostedModel
from pophood.serve.ollama import reading, shapes
from pophood.serve.ollama.answering import answer, refused
from pophood.serve.openapi import TELEMETRY_OFF
from pophood.serve.protocol.answering import SILENCE
from pophood.serve.protocol.replies import MOST_OPEN
from pophood.serve.protocol.responses import Json, refusal
from pophood.serve.protocol.schemas import read_object
from pophood.serve.routes import models

Fields = Mapping[str, Any]


def build_ollama_app(catalog: Catalog, *, most_open: int = MOST_OPEN, silence: float = SILENCE) -> FastAPI:
    """Return the app. `most_open` and `silence` are as in `build_app`."""
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=TELEMETRY_OFF
    )
    desk = Desk(catalog, most_open, silence)

    async def chat(request: Request) -> Response:
        return await _answered(request, "chat", reading.chat_of, catalog, most_open)

    async def generate(request: Request) -> Response:
        return await _answered(request, "generate", reading.generate_of, catalog, most_open)

    async def show(request: Request) -> Response:
        return Json(shapes.show(reading.model_of(read_object(await request.body()), catalog).served))

    async def tags() -> Response:
        return Json(shapes.tags(catalog))

    async def version() -> Response:
        return Json(shapes.version())

    async def alive() -> Response:
        return PlainTextResponse("pophood is running")

    async def list_models() -> Response:
        return Json(models.listed(catalog))

    posts = {
        "/api/chat": chat,
        "/api/generate": generate,
        "/api/show": show,
        "/v1/chat/completions": desk.chat,
        "/v1/completions": desk.completion,
    }
    for path, post in posts.items():
        app.add_api_route(path, post, methods=["POST"], response_model=None)
    gets: Mapping[str, Callable[..., Any]] = {
        "/api/tags": tags,
        "/api/version": version,
        "/v1/models": list_models,
        "/": alive,
    }
    for path, get in gets.items():
        app.add_api_route(path, get, methods=["GET", "HEAD"], response_model=None)
    for kind, handler in ((ApiError, _refused), (HTTPException, _unrouted), (ClientDisconnect, _left)):
        app.add_exception_handler(kind, handler)
    return app


async def _answered(
    request: Request,
    kind: shapes.Kind,
    read: Callable[[Fields, ServedModel], Asked | None],
    catalog: Catalog,
    most_open: int,
) -> Response:
    """Return the answer to a request for one, or that the model is there if nothing is to be written."""
    body = await request.body()

    def work() -> tuple[HostedModel, Asked | None]:
        fields = read_object(body)
        hosted = reading.model_of(fields, catalog)
        return hosted, read(fields, hosted.served)

    hosted, asked = await asyncio.to_thread(work)
    shape = shapes.OllamaShape(kind, hosted.served.name)
    if asked is None:
        return Json(shape.loaded())
    return answer(asked, shape, hosted.client, most_open=most_open)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refused(error) if request.url.path.startswith("/api/") else refusal(error)


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _unrouted(request: Request, error: Exception) -> Response:
    """Answer 404 and 405 in the shape of the protocol that was asked."""
    assert isinstance(error, HTTPException)
    kind = MISSING if error.status_code == 404 else INVALID
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return await _refused(request, ApiError(error.status_code, message, kind))
