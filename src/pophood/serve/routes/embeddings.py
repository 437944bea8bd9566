"""POST /v1/embeddings: a prompt for each vector; the answer waits for all of them. (small: one route)"""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray
from starlette.types import Send

from pophood.openai.embeddings import AskedEmbeddings, asked_of
from pophood.openai.errors import ApiError, invalid
from pophood.openai.model import ServedModel
from pophood.serve.client import EngineClient
from pophood.serve.messages import UNWATCHED, Failed, Pooled
from pophood.serve.protocol.assembly import of_failure
from pophood.serve.protocol.replies import Replies
from pophood.serve.protocol.responses import Json, Watched, refusal, respond
from pophood.serve.protocol.schemas import EmbeddingsRequest

PARAM = "input"


def asked(request: EmbeddingsRequest, served: ServedModel) -> AskedEmbeddings:
    """Return what a request asks for. Raises ApiError for a wrong field."""
    if request.dimensions is not None:
        why = "the model's vectors were not trained to be cut"
        raise invalid(f"`dimensions` is not supported: {why}.", "dimensions", "unsupported_parameter")
    return asked_of(
        request.input,
        served,
        encoding=request.encoding_format,
        pooling=request.pooling,
        adapters=request.adapters,
    )


def embed(asked: AskedEmbeddings, client: EngineClient, *, most_open: int) -> Watched:
    """Return the response to a request, computed for as long as its client is there."""

    async def answering(send: Send) -> None:
        try:
            vectors = await _vectors(asked, client, most_open)
            await respond(send, await asyncio.to_thread(lambda: Json(asked.answer(vectors))))
        except ApiError as error:
            await respond(send, refusal(error))

    return Watched(answering)


async def _vectors(asked: AskedEmbeddings, client: EngineClient, most_open: int) -> list[NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    async with Replies(client, asked.jobs, most_open=most_open, pause=UNWATCHED) as replies:
        while not replies.done:
            for number, event in await replies.next():
                if isinstance(event, Failed):
                    raise of_failure(event, PARAM)
                if isinstance(event, Pooled):
                    found[number] = np.frombuffer(event.vector, np.float32)
    return [found[number] for number in range(len(asked.jobs))]
