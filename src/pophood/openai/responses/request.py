"""POST /v1/responses: the fields of a request, read as a chat. Nothing is stored between requests.

Fields that would need a memory, or would change the answer in another way, are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from pophood.errors import short
from pophood.openai import chat
from pophood.openai.asked import Asked
from pophood.openai.errors import ApiError, invalid
from pophood.openai.model import ServedModel
from pophood.openai.requests import (
    LIST,
    OBJECT,
    ChatFields,
    Count,
    Flag,
    GeneratingFields,
    Text,
    whole,
)
from pophood.openai.responses.items import messages_of
from pophood.openai.responses.shape import ResponseFacts, ResponseShape

LOGPROBS = "message.output_text.logprobs"  # the value of `include` that asks for log-probabilities
STATELESS = "nothing is kept between requests: send the whole conversation as `input`"
# Fields that would change the answer -> why they cannot, and the values that ask for what happens anyway.
REFUSED: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "store": (STATELESS, (False,)),
    "previous_response_id": (STATELESS, ()),
    "conversation": (STATELESS, ()),
    "background": ("the answer comes with the request", (False,)),
    "prompt": ("no prompts are stored here: send `input`", ()),
    "truncation": ("prompts are never cut: shorten it", ("disabled",)),
    "max_tool_calls": ("there are no tools that this server calls itself", ()),
    "inspect": ("its records come with /v1/chat/completions", ()),
    "context_management": ("prompts are never cut: shorten it", ()),
}
# Names of fields of a chat, as an error has them -> what they are called here.
_NAMES = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "logprobs": "include",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFields(GeneratingFields):
    """A conversation to answer, in the words of the Responses API."""

    input: Any
    instructions: Text = None
    max_output_tokens: Count = None
    text: Annotated[Mapping[str, Any] | None, OBJECT] = None
    include: Annotated[Sequence[Any] | None, LIST] = None
    top_logprobs: Annotated[int | None, whole(0, 20)] = None
    tools: Annotated[Sequence[Any] | None, LIST] = None
    tool_choice: Any = None
    parallel_tool_calls: Flag = None
    chat_template_kwargs: Annotated[Mapping[str, Any] | None, OBJECT] = None
    reasoning: Annotated[Mapping[str, Any] | None, OBJECT] = None
    metadata: Annotated[Mapping[str, Any] | None, OBJECT] = None
    store: Flag = None
    previous_response_id: Any = None
    conversation: Any = None
    background: Flag = None
    prompt: Any = None
    truncation: Any = None
    max_tool_calls: Any = None
    context_management: Any = None


def asked_of(request: ResponseFields, served: ServedModel) -> Asked:
    """Return what a request asks for. Raises ApiError that names the field that is wrong."""
    for name, (why, harmless) in REFUSED.items():
        value = getattr(request, name)
        if value is not None and value not in harmless:
            message = f"`{name}` is not supported: {why}."
            raise invalid(message, name, "unsupported_parameter")
    if request.n not in (None, 1):
        raise invalid(f"n is {request.n}; a response has one answer", "n")
    talk = _as_chat(request)
    try:
        asked = chat.asked_of(talk, served)
    except ApiError as error:
        renamed = _NAMES.get(error.param or "", error.param)
        raise replace(error, param=renamed) from error
    shape = ResponseShape(served.name, served.fingerprint, asked.speller, usage_later=False)
    shape.short_ids = asked.calls is not None and asked.calls.form.short_ids
    settings = asked.jobs[0].settings
    shape.facts = ResponseFacts(
        instructions=request.instructions,
        tools=tuple(request.tools or ()),
        tool_choice="auto" if request.tool_choice is None else request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        text=request.text or {"format": {"type": "text"}},
        max_output_tokens=request.max_output_tokens,
        temperature=settings.sampling.temperature,
        top_p=settings.sampling.top_p,
        top_logprobs=request.top_logprobs or 0,
        metadata=request.metadata or {},
    )
    return replace(asked, shape=shape, param="input")


def _as_chat(request: ResponseFields) -> ChatFields:
    """Return the request as a chat."""
    given = {one.name: getattr(request, one.name) for one in fields(GeneratingFields)}
    form = _format(request.text)
    if form is not None:
        if given["response_format"] is not None:
            raise invalid("text.format and response_format mean the same: give one", "text.format")
        given["response_format"] = form
    given |= {"n": None, "stream_options": None}
    logprobs = _wants_logprobs(request)
    return ChatFields(
        **given,
        messages=messages_of(request.input, request.instructions),
        max_completion_tokens=request.max_output_tokens,
        logprobs=logprobs or None,
        top_logprobs=request.top_logprobs if logprobs else None,
        chat_template_kwargs=request.chat_template_kwargs,
        tools=_tools(request.tools),
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
    )


def _wants_logprobs(request: ResponseFields) -> bool:
    for value in request.include or ():
        if value != LOGPROBS:
            raise invalid(
                f"include: got {short(value)}; wanted {LOGPROBS}", "include", "unsupported_parameter"
            )
    if request.top_logprobs and not request.include:
        raise invalid(f'top_logprobs needs `include: ["{LOGPROBS}"]`', "top_logprobs")
    return bool(request.include)


def _format(text: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return `text.format` as the chat's `response_format`, whose schema is one level deeper."""
    form = (text or {}).get("format")
    if form is None:
        return None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {key: form[key] for key in form if key != "type"}}
    return form if isinstance(form, Mapping) else {"type": form}


def _tools(tools: Sequence[Any] | None) -> list[Any] | None:
    """Return functions as a chat has them: one level deeper."""
    if tools is None:
        return None
    return [
        {"type": "function", "function": {key: tool[key] for key in tool if key != "type"}}
        if isinstance(tool, dict) and tool.get("type") == "function"
        else tool
        for tool in tools
    ]
