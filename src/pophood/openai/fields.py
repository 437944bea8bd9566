"""Fields of requests that pophood does not compute: refused by name, or ignored as nothing depends on them.

Refused is a field that would change the answer, unless its value asks for what happens anyway. Fields that
are in no list are refused as OpenAI's own service does, so that a misspelt `temprature` is noticed.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from pophood.errors import quoted
from pophood.openai.errors import ApiError, invalid

# Fields that would change the answer -> what to do instead, or why not.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        # OpenAI
        "tools": "only a conversation has them: use /v1/chat/completions",
        "tool_choice": "only a conversation has it: use /v1/chat/completions",
        "parallel_tool_calls": "only a conversation has it: use /v1/chat/completions",
        "functions": "use `tools`",
        "function_call": "use `tool_choice`",
        "audio": "answers are text",
        "modalities": "answers are text",
        "prediction": "it would not make anything faster here",
        "web_search_options": "nothing is looked up outside this machine",
        "suffix": "these models continue a text, and do not fill gaps",
        "best_of": "all choices are returned: ask for `n`",
        # llama.cpp
        "lora": "adapters have names here: use `adapters`",
        "mirostat": "no such sampler is here",
        "dynatemp_range": "no such sampler is here",
        "top_n_sigma": "no such sampler is here",
        "tfs_z": "no such sampler is here",
        "n_probs": "use `logprobs` and `top_logprobs`",
        "post_sampling_probs": "log-probabilities are the model's, before any sampling step",
        "t_max_predict_ms": "answers end by `max_tokens` and stops, not by a clock",
        "input_prefix": "these models continue a text, and do not fill gaps",
        "input_suffix": "these models continue a text, and do not fill gaps",
        # vLLM
        "prompt_logprobs": "use /v1/completions with `echo` and `logprobs`",
        "use_beam_search": "no beam search is here",
        "length_penalty": "no beam search is here",
        "truncate_prompt_tokens": "prompts are never cut: shorten it",
        "include_stop_str_in_output": "a stop text is never part of the answer",
        "continue_final_message": "use /v1/completions with the rendered prompt",
        "chat_template": "the model's own template is used",
        "documents": "write them into a message",
    }
)
# Values of refused fields that ask for what happens anyway. None, false and empty ones always do.
HARMLESS_VALUES: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True,),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "mirostat": (0,),
        "dynatemp_range": (0,),
        "top_n_sigma": (-1, 0),
        "tfs_z": (1,),
        "n_probs": (0,),
        "t_max_predict_ms": (-1, 0),
        "length_penalty": (1,),
        "truncate_prompt_tokens": (-1,),
    }
)
# Fields on which no answer depends.
IGNORED = frozenset(
    {
        # OpenAI: for its accounts, caches and reasoning models
        *("user", "metadata", "store", "safety_identifier", "service_tier", "verbosity", "reasoning_effort"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        # llama.cpp: the cache changes no bit here, and there are no slots
        *("cache_prompt", "id_slot", "n_keep", "n_discard", "timings_per_token", "sse_ping_interval"),
        *("min_keep", "mirostat_tau", "mirostat_eta", "dynatemp_exponent"),
        # vLLM, Ollama, LM Studio
        *("priority", "request_id", "spaces_between_special_tokens", "keep_alive", "ttl"),
    }
)


def check_others(fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ApiError for a field outside `known` that would change the answer, or that nobody knows."""
    for name, value in fields.items():
        if name in REFUSED and not _is_harmless(name, value):
            raise invalid(f"`{name}` is not supported: {REFUSED[name]}.", name, "unsupported_parameter")
    unknown = [name for name in fields if name not in REFUSED and name not in IGNORED]
    if unknown:
        raise _unknown(unknown, known)


def _is_harmless(name: str, value: Any) -> bool:
    if value is None or value is False or value in ("", [], {}):
        return True
    return any(
        value == one and isinstance(value, bool) == isinstance(one, bool)
        for one in HARMLESS_VALUES.get(name, ())
    )


def _unknown(names: list[str], known: Collection[str]) -> ApiError:
    near = difflib.get_close_matches(names[0][:60], known, 1)
    meant = f" Did you mean `{near[0]}`?" if near else ""
    listed = ", ".join(map(quoted, names[:8]))
    message = f"Unrecognized request argument supplied: {listed}.{meant}"
    return invalid(message, names[0][:60], "unknown_parameter")
