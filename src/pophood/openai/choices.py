"""The JSON of answers: chat and completion, whole and in pieces of a stream.

A stream of a chat opens each choice with its role, in the order of their numbers; openai's client joins every
text that it gets, the role too. `choices` is in every piece, since some clients demand it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pophood.generate import Finish, Timings
from pophood.openai.logprobs import Speller, TokenEntry
from pophood.openai.tools.parser import CallPiece, Piece, calls_of, text_of

Reason = Literal["stop", "length", "tool_calls"]
REASONS: Mapping[Finish, Reason] = {
    "stop": "stop",
    "stop_string": "stop",
    "length": "length",
    "context": "length",
}


@dataclass(slots=True)
class ChoiceText:
    """One choice as far as it has come: text and parts of calls, in order."""

    index: int
    pieces: list[Piece] = field(default_factory=list)
    entries: list[TokenEntry] = field(default_factory=list)
    finish: Reason | None = None
    insides: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        return text_of(self.pieces)


@dataclass(slots=True)
class Counts:
    """Numbers of tokens of a request, and the seconds that they took."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    timings: Timings = field(default_factory=Timings)

    def add(self, timings: Timings) -> None:
        """Add what one prompt took."""
        for name in ("prefill_seconds", "prefill_tokens", "decode_seconds", "decode_tokens"):
            setattr(self.timings, name, getattr(self.timings, name) + getattr(timings, name))

    @property
    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    @property
    def speeds(self) -> dict[str, Any]:
        """The field `timings`, in llama.cpp's words: milliseconds, and tokens per second."""
        spent = self.timings
        read, wrote = spent.prefill_tokens, spent.decode_tokens
        return {
            "cache_n": self.cached,
            "prompt_n": read,
            "prompt_ms": round(spent.prefill_seconds * 1e3, 3),
            "prompt_per_second": round(read / spent.prefill_seconds, 3) if spent.prefill_seconds else None,
            "predicted_n": self.generated,
            "predicted_ms": round(spent.decode_seconds * 1e3, 3),
            "predicted_per_second": round(wrote / spent.decode_seconds, 3) if spent.decode_seconds else None,
        }


def inspected(insides: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return the field of a choice with the insides of the model; none if they were not asked for."""
    return {} if insides is None else {"inspect": insides}


class AnswerShape:
    """The part that chat and completion share: the fields around `choices`, equal in all pieces."""

    whole_object: str
    piece_object: str
    prefix: str

    def __init__(self, model: str, fingerprint: str, speller: Speller | None, *, usage_later: bool) -> None:
        """`speller`: None without log-probabilities. With `usage_later` a stream ends with its usage."""
        self._speller = speller
        self._usage_later = usage_later
        self._head = {
            "id": f"{self.prefix}{secrets.token_hex(12)}",
            "object": self.piece_object,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def stamp(self, id_: str, created: int) -> None:
        """Set what makes an answer unlike others: its id, and when it was made in seconds since 1970."""
        self._head |= {"id": f"{self.prefix}{id_}", "created": created}

    def whole(
        self, choices: Sequence[ChoiceText], usage: Mapping[str, Any], details: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the answer of a request that is not streamed."""
        return {
            **self._head,
            "object": self.whole_object,
            "choices": [self.full(choice) | inspected(choice.insides) for choice in choices],
            "usage": usage,
            **details,
        }

    def piece(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return one piece of a stream."""
        usage = {"usage": None} if self._usage_later else {}
        return {**self._head, "choices": choices, **usage, **more}

    def full(self, choice: ChoiceText) -> dict[str, Any]:
        raise NotImplementedError

    def opening(self, index: int) -> dict[str, Any]:
        """Return what opens a choice in a stream, before there is any text."""
        raise NotImplementedError

    def grown(self, index: int, text: str, entries: Sequence[TokenEntry]) -> dict[str, Any]:
        """Return new text of a choice."""
        raise NotImplementedError

    def called(self, index: int, call: CallPiece) -> dict[str, Any]:
        """Return a part of a call in a choice."""
        raise NotImplementedError

    def ended(self, index: int, finish: Reason | None) -> dict[str, Any]:
        raise NotImplementedError


class ChatShape(AnswerShape):
    """chat.completion and chat.completion.chunk."""

    whole_object, piece_object, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"
    short_ids = False  # of calls: 9 letters, as Mistral's templates demand

    def full(self, choice: ChoiceText) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if calls := self.calls(choice.index, choice.pieces):
            message |= {"content": choice.text or None, "tool_calls": calls}
        logprobs = self._logprobs(choice.entries)
        return {
            "index": choice.index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.finish,
        }

    def opening(self, index: int) -> dict[str, Any]:
        return self._delta(index, {"role": "assistant", "content": ""})

    def grown(self, index: int, text: str, entries: Sequence[TokenEntry]) -> dict[str, Any]:
        return self._delta(index, {"content": text}) | {"logprobs": self._logprobs(entries)}

    def called(self, index: int, call: CallPiece) -> dict[str, Any]:
        function = {"arguments": call.arguments}
        delta: dict[str, Any] = {"index": call.number, "function": function}
        if call.name is not None:
            delta |= {"id": self.call_id(index, call.number), "type": "function"}
            delta["function"] = {"name": call.name, **function}
        return self._delta(index, {"tool_calls": [delta]})

    def ended(self, index: int, finish: Reason | None) -> dict[str, Any]:
        return self._delta(index, {}, finish)

    def calls(self, index: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Return the whole calls of a choice."""
        return [
            {
                "id": self.call_id(index, number),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for number, (name, arguments) in enumerate(calls_of(pieces))
        ]

    def call_id(self, index: int, number: int) -> str:
        """Return the id of a call, which follows from that of the answer."""
        digest = hashlib.sha256(f"{self._head['id']} {index} {number}".encode()).hexdigest()
        return digest[:9] if self.short_ids else f"call_{digest[:24]}"

    @staticmethod
    def _delta(index: int, delta: dict[str, Any], finish: Reason | None = None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _logprobs(self, entries: Sequence[TokenEntry]) -> dict[str, Any] | None:
        return None if self._speller is None else {"content": self._speller.chat(entries), "refusal": None}


class CompletionShape(AnswerShape):
    """text_completion, whole and streamed."""

    whole_object, piece_object, prefix = "text_completion", "text_completion", "cmpl-"

    def full(self, choice: ChoiceText) -> dict[str, Any]:
        return self._text(choice.index, choice.text, choice.entries, choice.finish)

    def opening(self, index: int) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": None}

    def grown(self, index: int, text: str, entries: Sequence[TokenEntry]) -> dict[str, Any]:
        return self._text(index, text, entries, None)

    def ended(self, index: int, finish: Reason | None) -> dict[str, Any]:
        return self._text(index, "", (), finish)

    def _text(
        self, index: int, text: str, entries: Sequence[TokenEntry], finish: Reason | None
    ) -> dict[str, Any]:
        logprobs = None if self._speller is None else self._speller.legacy(entries)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
