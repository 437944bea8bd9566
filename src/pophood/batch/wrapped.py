"""Lines of OpenAI's batches: {"custom_id", "method", "url", "body"}, answered as the server would answer.

The usage has no count of cached tokens, since that depends on other lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pophood.batch.model import BatchModel
from pophood.batch.own import with_defaults
from pophood.batch.shapes import BatchShape, JobResult, LineRequest
from pophood.errors import short
from pophood.openai import chat, completions
from pophood.openai.asked import Asked
from pophood.openai.assembly import Assembly, Grown
from pophood.openai.errors import invalid, unknown_model
from pophood.openai.requests import ChatFields, CompletionFields, GeneratingFields, read_fields
from pophood.openai.responses import request as responses

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
LATER = {
    "/v1/embeddings": "embeddings come with a later version",
}
FIELDS = ("custom_id", "method", "url", "body")


def wrapped(data: Mapping[str, Any], shape: BatchShape, model: BatchModel) -> LineRequest:
    """Return what a line of OpenAI's batches asks for. Raises ApiError."""
    if unknown := [name for name in data if name not in FIELDS]:
        raise invalid(f"the line has {short(unknown[0])}; wanted {', '.join(FIELDS)}", unknown[0][:60])
    if data.get("method", "POST") != "POST":
        raise invalid(f"method: got {short(data['method'])}; wanted POST", "method")
    url, body = data.get("url"), data.get("body")
    if url not in (CHAT, COMPLETIONS, RESPONSES):
        why = (
            LATER.get(url, f"wanted {CHAT}, {COMPLETIONS} or {RESPONSES}")
            if isinstance(url, str)
            else "wanted a text"
        )
        raise invalid(f"url: got {short(url)}; {why}", "url", "unsupported_url")
    if not isinstance(body, dict):
        raise invalid(f"body: got {short(body)}; wanted an object", "body", "invalid_value")
    if body.get("stream"):
        raise invalid("an answer of a batch is not streamed: leave `stream` out", "stream")
    asked = _asked(body, url, shape, model)
    asked.shape.stamp(shape.stamp, model.defaults.created)
    return LineRequest(shape, asked.jobs, lambda results: _answer(asked, results))


def _asked(body: Mapping[str, Any], url: str, shape: BatchShape, model: BatchModel) -> Asked:
    if url == CHAT:
        talk = read_fields(body, ChatFields)
        return chat.asked_of(_usual(talk, shape, model, talk.max_completion_tokens), model.served)
    if url == RESPONSES:
        item = read_fields(body, responses.ResponseFields)
        return responses.asked_of(_usual(item, shape, model, item.max_output_tokens), model.served)
    return completions.asked_of(_usual(read_fields(body, CompletionFields), shape, model), model.served)


def _usual(fields: GeneratingFields, shape: BatchShape, model: BatchModel, limit: int | None = None) -> Any:
    """Return the fields with the usual values of this run where the request says nothing."""
    served, defaults = model.served, model.defaults
    if not served.answers_to(fields.model):
        raise unknown_model(str(fields.model), served.name)
    given: dict[str, Any] = {}
    if fields.seed in (None, -1):
        given["seed"] = defaults.seed_of(shape.line.number)
    if fields.max_tokens is None and fields.n_predict is None and limit is None:
        given["max_tokens"] = -1 if defaults.endless else defaults.max_tokens
    return replace(with_defaults(fields, model), **given)


def _answer(asked: Asked, results: Sequence[JobResult]) -> Mapping[str, Any]:
    assembly, grown = Assembly(asked), Grown()
    for prompt, result in enumerate(results):
        assembly.begin(prompt, len(result.running.request.prompt), 0, grown)
        if result.running.request.scores is not None:
            assembly.repeat(prompt, result.running.scores, grown)
        assembly.look(prompt, result.running.insides, grown)
        for token in result.tokens:
            assembly.grow(prompt, token, grown)
        assembly.end(prompt, result.running.timings)
    counts = assembly.counts
    usage = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.generated,
        "total_tokens": counts.prompt + counts.generated,
    }
    return asked.shape.whole(assembly.choices(grown), usage, assembly.details)
