"""Answering a request: the worker's events become one JSON answer, or a stream of pieces.

    submit ─► [each choice opened] ─► progress, text, log-probabilities ─► [how each ended, usage] ─► [DONE]

A failure before the first byte is a status; after it, an error event ends the stream without [DONE].
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from starlette.types import Send

from pophood.openai.asked import Asked
from pophood.openai.assembly import Growth
from pophood.openai.errors import SERVER, ApiError
from pophood.openai.inspecting import values_of
from pophood.serve.client import EngineClient
from pophood.serve.messages import UNWATCHED, Answered, PromptInspected, PromptScored, Tokens
from pophood.serve.protocol import sse
from pophood.serve.protocol.assembly import EventAssembly
from pophood.serve.protocol.replies import MOST_OPEN, Replies
from pophood.serve.protocol.responses import EventStream, Json, Watched, refusal, respond
from pophood.serve.protocol.writers import ChunkWriter, writer_of

SILENCE = 10.0  # seconds after which a comment keeps the connection open
# Seconds in which a failure becomes a status; after that the stream is opened. What can be known of a
# request is refused before the worker hears of it (`openai.asked.check_jobs`, `Replies`), whatever the time.
PATIENCE = 0.01
HEAVY = 500  # entries of log-probabilities whose JSON is made beside the loop, which others need meanwhile
HEAVY_VALUES = 4_000  # of the model's insides, likewise


def answer(
    asked: Asked, client: EngineClient, *, most_open: int = MOST_OPEN, silence: float = SILENCE
) -> Watched:
    """Return the response to a request, computed while it is written, for as long as its client is there.

    With `most_open` requests at the worker it is a 429.
    """

    async def answering(send: Send) -> None:
        stream, writer = EventStream(send), writer_of(asked)
        try:
            pause = asked.pause if asked.stream else UNWATCHED
            async with Replies(client, asked.jobs, most_open=most_open, pause=pause) as replies:
                if asked.stream:
                    await _stream(asked, replies, stream, writer, silence)
                else:
                    await respond(send, await _whole(asked, replies))
        except ApiError as error:
            if stream.opened:
                await stream.close(writer.failed(error))
            else:
                await respond(send, refusal(error))
        except Exception:
            if stream.opened:  # before that, the outermost guard answers with a 500
                bug = ApiError(500, "a bug in pophood ended this answer", SERVER, code="internal_error")
                await stream.close(writer.failed(bug))
            raise

    return Watched(answering)


async def _whole(asked: Asked, replies: Replies) -> Json:
    """Wait for all events and return the answer."""
    assembly = EventAssembly(asked)
    choices = assembly.empty_choices()
    while not replies.done:
        for index, growth in (await _take(assembly, await replies.next())).items():
            choices[index].pieces += growth.pieces
            choices[index].entries += growth.entries
            if (insides := choices[index].insides) is not None:
                insides += growth.insides
    for index, reason in assembly.ends:
        choices[index].finish = reason

    def made() -> Json:
        return Json(asked.shape.whole(choices, assembly.counts.usage, assembly.details))

    looked = 0 if asked.inside is None else asked.inside.told
    heavy = sum(len(choice.entries) for choice in choices) > HEAVY or looked > HEAVY_VALUES
    return await asyncio.to_thread(made) if heavy else made()


async def _take(assembly: EventAssembly, events: Sequence[tuple[int, Answered]]) -> dict[int, Growth]:
    """Give events to the assembly, beside the loop if there is much in them."""
    return await asyncio.to_thread(assembly.take, events) if _are_heavy(events) else assembly.take(events)


def _are_heavy(events: Sequence[tuple[int, Answered]]) -> bool:
    """Return whether events are scores of a long prompt, or hold many values of the model's insides."""
    values = 0
    for _, event in events:
        if isinstance(event, PromptScored) and len(event.scores) > HEAVY:
            return True
        if isinstance(event, PromptInspected):
            values += sum(map(values_of, event.insides))
        elif isinstance(event, Tokens):
            values += sum(values_of(token.inside) for token in event.tokens if token.inside is not None)
    return values > HEAVY_VALUES


async def _stream(
    asked: Asked, replies: Replies, stream: EventStream, writer: ChunkWriter, silence: float
) -> None:
    """Write the stream of an answer. Raises ApiError, before anything is written if it can."""
    assembly = EventAssembly(asked)
    grown = await _take(assembly, await replies.next(PATIENCE))
    await stream.open()
    lines = [writer.opening()]
    ended = 0  # choices whose end was written
    quiet_since = time.monotonic()
    while True:
        if assembly.moved and asked.progress:
            lines.append(writer.moved(assembly.progress))
        if grown:
            lines.append(writer.grown(grown))
        # The last end of all waits until it is known how long everything took.
        ends = assembly.ends if replies.done else assembly.ends[: asked.size - 1]
        for index, reason in ends[ended:]:
            last = replies.done and index == ends[-1][0]
            lines.append(writer.ended(index, reason, assembly.details if last else {}))
        ended = len(ends)
        if replies.done:
            break
        if not lines and time.monotonic() - quiet_since >= silence:
            lines.append(sse.KEEP_ALIVE)
        if lines:
            await stream.write(b"".join(lines))
            lines, quiet_since = [], time.monotonic()
        grown = await _take(assembly, await replies.next(max(quiet_since + silence - time.monotonic(), 0)))
    await stream.close(b"".join([*lines, writer.closing(assembly.counts.usage)]))
