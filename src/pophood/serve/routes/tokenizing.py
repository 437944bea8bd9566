"""/tokenizer_info, /tokenize, /detokenize in vLLM's shapes: evaluations then need no tokenizer."""

from __future__ import annotations

from typing import Any

from pophood.errors import PophoodError
from pophood.openai.chat import conversation
from pophood.openai.errors import invalid, of_pophood
from pophood.openai.model import ServedModel
from pophood.openai.requests import read_ids
from pophood.openai.settings import adapters_of
from pophood.openai.tools.toolset import toolset_of
from pophood.serve.protocol.schemas import DetokenizeRequest, TokenizeRequest

# Fields that belong to one form of /tokenize alone.
TEXT_FIELDS = ("prompt", "parse_special")
CHAT_FIELDS = ("messages", "add_generation_prompt", "chat_template_kwargs", "tools", "adapters")


def tokenize(request: TokenizeRequest, served: ServedModel) -> dict[str, Any]:
    """Return the ids of a text, or of a conversation. Raises ApiError unless exactly one is given.

    Special tokens that a text spells are read as such, as lm-eval asks for an end token by its name; in a
    conversation only the template writes them.
    """
    if (request.prompt is None) == (request.messages is None):
        raise invalid("give either `prompt` or `messages`", "prompt")
    ids = _text_ids(request, served) if request.messages is None else _chat_ids(request, served)
    names = [served.tokenizer.token_text(id_) for id_ in ids] if request.return_token_strs else None
    return {"count": len(ids), "max_model_len": served.window, "tokens": ids, "token_strs": names}


def _text_ids(request: TokenizeRequest, served: ServedModel) -> list[int]:
    _check_form(request, CHAT_FIELDS, "prompt")
    assert request.prompt is not None
    try:
        return served.tokenizer.encode(
            request.prompt,
            parse_special=request.parse_special is not False,
            add_start=request.add_special_tokens is not False,
        )
    except PophoodError as error:
        raise of_pophood(error, "prompt") from error


def _chat_ids(request: TokenizeRequest, served: ServedModel) -> list[int]:
    _check_form(request, TEXT_FIELDS, "messages")
    if request.add_special_tokens:
        wanted = "the chat template writes the start tokens itself: leave it out"
        raise invalid(f"add_special_tokens: {wanted}", "add_special_tokens")
    assert request.messages is not None
    adapters = adapters_of(request.adapters, served)
    return conversation(
        served,
        request.messages,
        adapters,
        request.chat_template_kwargs,
        add_generation_prompt=request.add_generation_prompt is not False,
        tools=toolset_of(request.tools, None, None, served.template_of(adapters)),
    ).ids


def _check_form(request: TokenizeRequest, others: tuple[str, ...], form: str) -> None:
    for name in others:
        if getattr(request, name) is not None:
            raise invalid(f"`{name}` does not go with `{form}`", name)


def detokenize(request: DetokenizeRequest, served: ServedModel) -> dict[str, Any]:
    """Return the text of ids, special tokens included."""
    ids = read_ids(request.tokens, "tokens", served.vocab_size)
    return {"prompt": served.tokenizer.decode(ids, special=True)}


def tokenizer_info(served: ServedModel) -> dict[str, Any]:
    """Return the names of special tokens and the chat template, under the keys of tokenizer_config.json."""
    named = {"bos_token": None, "pad_token": None} | dict(served.tokenizer.names)
    return {
        "tokenizer_class": "pophood",
        **named,
        "eos_token": served.end_token,
        "chat_template": None if served.template is None else served.template.source,
        "model_max_length": served.window,
        "vocab_size": served.tokenizer.vocab_size,
    }
