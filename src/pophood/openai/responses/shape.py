"""ResponseShape: the JSON of a response, whole and as the events of a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pophood.openai.choices import ChatShape, ChoiceText, Reason
from pophood.openai.logprobs import TokenEntry
from pophood.openai.responses.output import Event, OutputItems


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """The fields of a request that its response repeats."""

    instructions: str | None = None
    tools: tuple[Any, ...] = ()
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    text: Mapping[str, Any] = field(default_factory=dict)
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ResponseShape(ChatShape):
    """A response. `facts` are set once it is known what was asked for."""

    whole_object, piece_object, prefix = "response", "response", "resp_"
    facts = ResponseFacts()

    def whole(
        self, choices: Sequence[ChoiceText], usage: Mapping[str, Any], details: Mapping[str, Any]
    ) -> dict[str, Any]:
        (choice,) = choices
        items = self.items()
        for _ in (
            *items.take(choice.pieces, choice.entries),
            *items.close(complete=choice.finish != "length"),
        ):
            pass
        return self.response(items, choice.finish, usage, details)

    def items(self) -> OutputItems:
        """Return the items of a new answer."""
        return OutputItems(self._id, self._spelled)

    def begun(self) -> Iterator[Event]:
        """Yield the events that open a stream."""
        for kind in ("created", "in_progress"):
            yield {"type": f"response.{kind}", "response": self._body("in_progress", [])}

    def finished(
        self,
        items: OutputItems,
        finish: Reason | None,
        usage: Mapping[str, Any],
        details: Mapping[str, Any],
    ) -> Event:
        """Return the event that ends a stream."""
        body = self.response(items, finish, usage, details)
        return {"type": f"response.{body['status']}", "response": body}

    def response(
        self,
        items: OutputItems,
        finish: Reason | None,
        usage: Mapping[str, Any],
        details: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the whole response."""
        status = "incomplete" if finish == "length" else "completed"
        body = self._body(status, items.output)
        if status == "incomplete":
            body["incomplete_details"] = {"reason": "max_output_tokens"}
        return {**body, "usage": _usage(usage), **details}

    def _body(self, status: str, output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._head["id"],
            "object": "response",
            "created_at": self._head["created"],
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._head["model"],
            "system_fingerprint": self._head["system_fingerprint"],
            "output": list(output),
            **asdict(self.facts),
            "tools": list(self.facts.tools),
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "background": False,
            "truncation": "disabled",
            "usage": None,
        }

    def _id(self, kind: str, number: int) -> str:
        if kind == "call":
            return self.call_id(0, number)
        digest = hashlib.sha256(f"{self._head['id']} {kind} {number}".encode()).hexdigest()
        return f"{kind}_{digest[:24]}"

    def _spelled(self, entries: Sequence[TokenEntry]) -> list[dict[str, Any]]:
        return [] if self._speller is None else self._speller.chat(entries)


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage in the words of the Responses API."""
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
