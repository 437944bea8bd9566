"""POST /v1/chat/completions, and its dry run: the conversation as the model reads it, nothing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pophood.errors import PophoodError
from pophood.generate import GenerateSettings
from pophood.openai.asked import Asked, PromptJob, check_jobs, pause_of, wants_usage
from pophood.openai.choices import ChatShape
from pophood.openai.errors import invalid, of_pophood
from pophood.openai.inspecting import writer_of
from pophood.openai.logprobs import Speller
from pophood.openai.model import AdapterPair, ServedModel
from pophood.openai.requests import ChatFields
from pophood.openai.settings import adapters_of, limit_of, settings_of
from pophood.openai.tools.constraint import unenforced, with_tools
from pophood.openai.tools.toolset import Toolset, toolset_of
from pophood.sampling import draw_seed
from pophood.text.chat.chat_template import ChatPrompt, chat_prompt


def asked_of(request: ChatFields, served: ServedModel) -> Asked:
    """Return what a request asks for. Raises ApiError for a wrong field, or a conversation too long."""
    settings = _settings(request, served)
    top = (request.top_logprobs or 0) if request.logprobs else None
    adapters = adapters_of(request.adapters, served)
    tools = tools_of(request, adapters, served)
    left_out: tuple[str, ...] = ()
    if tools is not None:
        settings = with_tools(settings, tools, served)
        left_out = unenforced(tools, settings, served)
    prompt = prompt_of(request, adapters, tools, served)
    assert settings.seed is not None
    jobs = (PromptJob(tuple(prompt.ids), settings, adapters),)
    check_jobs(jobs, served, "messages")
    hidden = () if settings.special else served.tokenizer.specials.keys() - set(settings.shown)
    speller = None if top is None else Speller(served.tokenizer, hidden)
    stream = bool(request.stream)
    later = stream and wants_usage(request.stream_options)
    shape = ChatShape(served.name, served.fingerprint, speller, usage_later=later)
    shape.short_ids = tools is not None and tools.form.short_ids
    return Asked(
        jobs,
        shape,
        "messages",
        settings.seed,
        speller=speller,
        top=top or 0,
        stops=served.tokenizer.stops if settings.stop_ids is None else settings.stop_ids,
        stream=stream,
        usage_later=later,
        progress=bool(request.return_progress),
        left_out=prompt.left_out + left_out,
        calls=None if tools is None else tools.reading,
        inside=writer_of(settings, served),
        pause=pause_of(request.stream_options),
    )


def tools_of(request: ChatFields, adapters: Sequence[AdapterPair], served: ServedModel) -> Toolset | None:
    """Return the functions of a request, if it has some that may be called. Raises ApiError."""
    template = served.template_of(adapters)
    return toolset_of(request.tools, request.tool_choice, request.parallel_tool_calls, template)


def prompt_of(
    request: ChatFields, adapters: Sequence[AdapterPair], tools: Toolset | None, served: ServedModel
) -> ChatPrompt:
    """Return the conversation of a request as the model reads it. Raises ApiError."""
    return conversation(
        served,
        request.messages,
        adapters,
        request.chat_template_kwargs,
        add_generation_prompt=request.add_generation_prompt is not False,
        tools=tools,
    )


def _settings(request: ChatFields, served: ServedModel) -> GenerateSettings:
    """Return how the answer is made, with its seed. Raises ApiError for a wrong field."""
    limit = limit_of(request, ("max_completion_tokens", request.max_completion_tokens))
    if limit == 0:
        raise invalid("max_tokens is 0; wanted 1 or more, or none to the end of the window", "max_tokens")
    if request.top_logprobs and not request.logprobs:
        raise invalid("top_logprobs needs `logprobs: true`", "top_logprobs")
    return settings_of(
        request,
        served,
        max_tokens=None if limit in (None, -1) else limit,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        seed=draw_seed() if request.seed is None or request.seed == -1 else request.seed,
        kind="chat",
    )


def conversation(
    served: ServedModel,
    messages: Sequence[Mapping[str, Any]],
    adapters: Sequence[AdapterPair],
    variables: Mapping[str, Any] | None,
    *,
    add_generation_prompt: bool,
    tools: Toolset | None = None,
) -> ChatPrompt:
    """Return a conversation as the model reads it. Raises ApiError, 400, for one that it cannot read."""
    template = served.template_of(adapters)
    if template is None:
        message = f"{served.name} is a completion model, without a chat template: use /v1/completions"
        raise invalid(message, "messages", "no_chat_template")
    values = dict(variables or {})
    try:
        template.check_variables(values)
    except PophoodError as error:
        raise of_pophood(error, "chat_template_kwargs") from error
    if tools is not None:
        if "tools" in values:
            raise invalid("`tools` are given in chat_template_kwargs too: give them once", "tools")
        values["tools"] = list(tools.listed)
    try:
        return chat_prompt(
            served.tokenizer, template, messages, add_generation_prompt=add_generation_prompt, **values
        )
    except PophoodError as error:
        raise of_pophood(error, "messages") from error


def render(request: ChatFields, served: ServedModel) -> dict[str, Any]:
    """Return the conversation as text and ids, with its length beside the window; nothing is computed.

    A conversation that is too long is no error here; what else is wrong is one, as if it were computed.
    """
    settings = _settings(request, served)
    adapters = adapters_of(request.adapters, served)
    tools = tools_of(request, adapters, served)
    if tools is not None:
        with_tools(settings, tools, served)
    prompt = prompt_of(request, adapters, tools, served)
    return {
        "object": "chat.completion.render",
        "model": served.name,
        "prompt": prompt.text,
        "prompt_token_ids": prompt.ids,
        "token_strs": [served.tokenizer.token_text(id_) for id_ in prompt.ids],
        "prompt_tokens": len(prompt.ids),
        "max_model_len": served.window,
        "fits": len(prompt.ids) <= served.window,
        "warnings": list(prompt.left_out),
    }
