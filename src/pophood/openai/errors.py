"""Errors as OpenAI's clients read them: a status, and `{"error": {message, type, param, code}}`.

A request that fails in the same way every time says so with `x-should-retry: false`; openai's client would
send it twice more otherwise. One that can succeed later says when, with `retry-after`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pophood.errors import ContextOverflow, PophoodError, one_line, quoted

INVALID, MISSING, BUSY, SERVER = (
    "invalid_request_error",
    "not_found_error",
    "rate_limit_error",
    "server_error",
)
RETRIED = (429, 503)


@dataclass
class ApiError(Exception):
    """An error that a client is told. `extra` are further fields beside OpenAI's four."""

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the response, and the data of an error event in a stream."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error | dict(self.extra)}

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"} if self.status in RETRIED else {"x-should-retry": "false"}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return a 400 about a field."""
    return ApiError(400, message, param=param, code=code)


def overflow(got: int, limit: int, param: str) -> ApiError:
    """Return a 400 in OpenAI's words, which clients search for, with the numbers that llama.cpp's have.

    >>> overflow(1300, 1024, "messages").message
    "This model's maximum context length is 1024 tokens. However, your messages resulted in 1300 tokens. \
Please reduce the length of the messages."
    """
    message = (
        f"This model's maximum context length is {limit} tokens. However, your {param} resulted in {got} "
        f"tokens. Please reduce the length of the {param}."
    )
    counts = {"n_ctx": limit, "n_prompt_tokens": got}
    return ApiError(400, message, param=param, code="context_length_exceeded", extra=counts)


def unknown_model(asked: str, loaded: str) -> ApiError:
    """Return a 404 that names the model that is there: no name is silently another model's."""
    message = f"The model {quoted(asked)} does not exist; {quoted(loaded)} is loaded."
    return ApiError(404, message, MISSING, "model", "model_not_found")


def unknown_adapter(asked: str, present: Sequence[str], param: str) -> ApiError:
    """Return a 404 that names the adapters that are there."""
    there = ", ".join(map(quoted, present)) or "none"
    message = f"The adapter {quoted(asked)} does not exist; loaded: {there}."
    return ApiError(404, message, MISSING, param, "adapter_not_found")


def of_pophood(error: PophoodError, param: str | None = None) -> ApiError:
    """Return a 400 for what the library refuses."""
    if isinstance(error, ContextOverflow):
        return overflow(error.got, error.limit, param or "prompt")
    return invalid(one_line(error), param)
