"""From the bodies of Ollama's `/api/chat` and `/api/generate` to the fields that `openai` reads.

Both protocols ask for the same things in other words. What Ollama would do silently is refused by name here:
cutting a long conversation, ignoring an option, showing a model an image that it cannot see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pophood.errors import quoted, short
from pophood.openai import chat, completions
from pophood.openai.asked import Asked
from pophood.openai.errors import ApiError, invalid
from pophood.openai.model import ServedModel
from pophood.openai.requests import ChatFields, CompletionFields, read_fields
from pophood.serve.catalog import Catalog, HostedModel

Json = dict[str, Any]
LATEST = ":latest"  # the tag that Ollama's clients add to a name without one

# Ollama's options -> OpenAI's or our fields.
OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "num_predict": "max_tokens",
        "repeat_penalty": "repeat_penalty",
        "repeat_last_n": "repeat_last_n",
        **{
            name: name
            for name in (
                *("temperature", "top_k", "top_p", "min_p", "seed", "stop"),
                *("presence_penalty", "frequency_penalty", "tfs_z", "mirostat", "mirostat_tau"),
            )
        },
        "mirostat_eta": "mirostat_eta",
        "typical_p": "typical_p",
    }
)
# Options on which no answer depends: how Ollama's runner computes, and what it keeps of a cut conversation.
IDLE_OPTIONS = frozenset(
    {
        *("num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "numa"),
        *("low_vram", "f16_kv", "vocab_only", "logits_all", "penalize_newline"),
    }
)
CHAT_FIELDS = frozenset(
    {
        *("model", "messages", "stream", "format", "keep_alive", "tools", "options", "think"),
        *("truncate", "shift", "logprobs", "top_logprobs"),
    }
)
GENERATE_FIELDS = frozenset(
    {
        *("model", "prompt", "suffix", "system", "template", "context", "stream", "raw", "format"),
        *("keep_alive", "images", "options", "think", "truncate", "shift", "logprobs", "top_logprobs"),
    }
)


def model_of(data: Mapping[str, Any], catalog: Catalog) -> HostedModel:
    """Return the model that a request names, with or without its tag. Raises ApiError."""
    name = data.get("model", data.get("name"))
    if not isinstance(name, str) or not name:
        raise invalid(f"model: got {short(name)}; wanted the name of a model", "model")
    known = [hosted for hosted in catalog.all() if hosted.served.answers_to(name)]
    return catalog.find(name if known else name.removesuffix(LATEST))


def chat_of(data: Mapping[str, Any], served: ServedModel) -> Asked | None:
    """Return what `/api/chat` asks for; None if it just wants the model to be loaded. Raises ApiError."""
    _check_names(data, CHAT_FIELDS)
    messages = data.get("messages")
    if not messages:
        return None
    if not isinstance(messages, list) or any(not isinstance(one, dict) for one in messages):
        raise invalid("messages: wanted a list of objects", "messages")
    fields = _fields(data, served)
    fields["messages"] = [_message(one, place) for place, one in enumerate(messages)]
    if data.get("tools"):
        fields["tools"] = data["tools"]
    return chat.asked_of(read_fields(fields, ChatFields), served)


def generate_of(data: Mapping[str, Any], served: ServedModel) -> Asked | None:
    """Return what `/api/generate` asks for: an answer to the prompt, or with `raw` its continuation.

    None if it just wants the model to be loaded. Raises ApiError.
    """
    _check_names(data, GENERATE_FIELDS)
    for name in ("suffix", "template", "context", "images"):
        if data.get(name):
            raise invalid(f"`{name}` is not supported.", name, "unsupported_parameter")
    prompt = data.get("prompt")
    if not prompt:
        return None
    if not isinstance(prompt, str):
        raise invalid(f"prompt: got {short(prompt)}; wanted a text", "prompt")
    fields = _fields(data, served)
    if data.get("raw") or served.template is None:
        if data.get("system"):
            raise invalid("`system` does not go with a raw prompt", "system")
        if fields.pop("logprobs", None):
            fields["logprobs"] = fields.pop("top_logprobs", 0)
        fields.setdefault("max_tokens", -1)
        return completions.asked_of(read_fields(fields | {"prompt": prompt}, CompletionFields), served)
    system = [{"role": "system", "content": data["system"]}] if data.get("system") else []
    fields["messages"] = [*system, {"role": "user", "content": prompt}]
    return chat.asked_of(read_fields(fields, ChatFields), served)


def _check_names(data: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(set(data) - known):
        raise invalid(f"{quoted(unknown[0][:60])} is no field of this request", unknown[0][:60])
    for name in ("truncate", "shift"):
        if data.get(name):
            raise invalid(f"`{name}` is not supported: conversations are never cut.", name)


def _fields(data: Mapping[str, Any], served: ServedModel) -> Json:
    """Return what both requests share, as OpenAI's fields; a stream unless `stream` is false."""
    fields: Json = {"stream": data.get("stream") is not False} | _options(data.get("options"), served)
    form = data.get("format")
    if form == "json":
        fields["response_format"] = {"type": "json_object"}
    elif isinstance(form, dict):
        fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "form", "schema": form}}
    elif form:
        raise invalid(f"format: got {short(form)}; wanted json, or a JSON schema", "format")
    if data.get("logprobs"):
        fields |= {"logprobs": True, "top_logprobs": data.get("top_logprobs") or 0}
    think = data.get("think")
    reads = served.template is not None and "enable_thinking" in served.template.source
    if think is not None and reads and isinstance(think, bool):
        fields["chat_template_kwargs"] = {"enable_thinking": think}
    elif think:
        raise invalid(f"`think` is not supported: {quoted(served.name)} does not think.", "think")
    return fields


def _options(options: object, served: ServedModel) -> Json:
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise invalid(f"options: got {short(options)}; wanted an object", "options")
    fields: Json = {}
    for name, value in options.items():
        if name in OPTIONS:
            fields[OPTIONS[name]] = value
        elif name == "num_ctx":
            if isinstance(value, int) and value > served.window:
                raise invalid(
                    f"options.num_ctx is {value:,}; the window has {served.window:,} tokens: ask for fewer",
                    "options",
                )
        elif name not in IDLE_OPTIONS:
            raise invalid(f"options: {quoted(str(name)[:60])} is not supported", "options")
    if fields.get("max_tokens") == -2:  # until the context is full
        fields["max_tokens"] = -1
    if fields.get("max_tokens") == -1 or fields.get("max_tokens") is None:
        fields.pop("max_tokens", None)
    return fields


def _message(message: Mapping[str, Any], place: int) -> Json:
    """Return a message as OpenAI has it: arguments of calls as text, calls with ids."""
    if message.get("images"):
        raise invalid(f"messages[{place}]: images are not supported", "messages", "unsupported_parameter")
    made: Json = {"role": message.get("role"), "content": message.get("content") or ""}
    if calls := message.get("tool_calls"):
        made["tool_calls"] = _calls(calls, place)
    if message.get("role") == "tool":
        made["tool_call_id"] = message.get("tool_call_id") or f"call_{place}"
        if name := message.get("tool_name"):
            made["name"] = name
    return made


def _calls(calls: object, place: int) -> Sequence[Json]:
    wrong: ApiError = invalid(f"messages[{place}].tool_calls: wanted a list of function calls", "messages")
    if not isinstance(calls, list):
        raise wrong
    made = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise wrong
        arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
        made.append(
            {
                "id": call.get("id") or f"call_{place}_{number}",
                "type": "function",
                "function": {"name": function.get("name"), "arguments": arguments},
            }
        )
    return made
