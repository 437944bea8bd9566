"""A strict reader of streams: every rule that some client depends on, and what the pieces amount to.

The rules are those of openai-python (one role, usage last, choices in order), Zed (`choices` in every piece,
`[DONE]` exactly, whole usage), Continue (no `: ping`) and of clients that split lines at U+2028.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

REASONS = {"stop", "length", "tool_calls"}
HEAD = ("id", "object", "created", "model", "system_fingerprint")


@dataclass(slots=True)
class ReadChoice:
    """One choice as its pieces add up."""

    text: str = ""
    finish: str | None = None
    opened: bool = False
    calls: list[dict[str, Any]] = field(default_factory=list)
    entries: list[Any] = field(default_factory=list)  # of chat
    lists: dict[str, list[Any]] = field(default_factory=dict)  # of completions


@dataclass(slots=True)
class ReadStream:
    """A whole stream. `error` is the last event's, if it is one."""

    choices: list[ReadChoice]
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    progress: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    comments: int = 0


def lines_of(body: bytes) -> list[str]:
    """Return the events of a body: the text after "data: ", or a comment with its colon."""
    text = body.decode("ascii")
    assert text.splitlines() == text.split("\n")[:-1], "another line splitter sees other lines"
    assert text.endswith("\n\n")
    events = text[:-2].split("\n\n")
    for event in events:
        assert "\n" not in event
        assert event.startswith("data: ") or event == ": keep-alive"
    return [event.removeprefix("data: ") for event in events]


def read_stream(body: bytes, *, size: int, include_usage: bool, chat: bool) -> ReadStream:
    """Check every rule over a stream with `size` choices, and return what it says."""
    events = lines_of(body)
    stream = ReadStream([ReadChoice() for _ in range(size)])
    data = [event for event in events if not event.startswith(":")]
    stream.comments = len(events) - len(data)
    pieces = [json.loads(event) for event in data if event != "[DONE]"]
    if "error" in pieces[-1]:
        assert pieces[-1].keys() == {"error"}
        assert "[DONE]" not in data
        stream.error = pieces.pop()["error"]
    else:
        assert data.count("[DONE]") == 1
        assert data[-1] == "[DONE]"
        assert stream.error is None
    assert all("error" not in piece for piece in pieces)
    assert len({tuple(piece[name] for name in HEAD) for piece in pieces}) <= 1, "the head of a piece differs"
    if include_usage and stream.error is None:
        stream.usage = _usage(pieces.pop())
    for place, piece in enumerate(pieces):
        assert isinstance(piece["choices"], list)
        assert ("usage" in piece) == include_usage
        assert piece.get("usage") is None
        if place < size:
            assert [one["index"] for one in piece["choices"]] == [place], "choices are not opened in order"
        if "prompt_progress" in piece:
            stream.progress.append(piece["prompt_progress"])
        for one in piece["choices"]:
            (_chat_piece if chat else _text_piece)(stream.choices[one["index"]], one)
    assert all(choice.opened for choice in stream.choices)
    if stream.error is None:
        assert all(choice.finish in REASONS for choice in stream.choices)
        stream.details = {name: value for name, value in pieces[-1].items() if name in ("timings", "seed")}
        assert stream.details.keys() == {"timings", "seed"}
    _as_openai_reads(pieces, stream, chat)
    return stream


def _usage(piece: dict[str, Any]) -> dict[str, Any]:
    assert piece["choices"] == []
    usage: dict[str, Any] = piece["usage"]
    counts = [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    assert all(type(count) is int for count in counts)
    assert counts[0] + counts[1] == counts[2]
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] <= counts[0]
    return usage


def _chat_piece(choice: ReadChoice, one: dict[str, Any]) -> None:
    delta = one["delta"]
    assert choice.finish is None, "something follows the end of a choice"
    assert delta.keys() <= {"role", "content", "tool_calls"}
    if not choice.opened:
        assert delta == {"role": "assistant", "content": ""}
        choice.opened = True
    else:
        assert "role" not in delta, "the role comes twice"
        assert ("content" in delta or "tool_calls" in delta) == (one["finish_reason"] is None)
    for call in delta.get("tool_calls", ()):
        _call_piece(choice, call)
    choice.text += delta.get("content", "")
    choice.finish = one["finish_reason"]
    if one["logprobs"] is not None:
        choice.entries += one["logprobs"]["content"]
        assert one["logprobs"]["refusal"] is None


def _call_piece(choice: ReadChoice, call: dict[str, Any]) -> None:
    if "id" in call:
        assert call.keys() == {"index", "id", "type", "function"}
        assert call["index"] == len(choice.calls) and call["function"].keys() == {"name", "arguments"}
        choice.calls.append(call | {"function": dict(call["function"])})
    else:
        assert call.keys() == {"index", "function"} and call["function"].keys() == {"arguments"}
        choice.calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]


def _text_piece(choice: ReadChoice, one: dict[str, Any]) -> None:
    assert choice.finish is None, "something follows the end of a choice"
    choice.opened = True
    choice.text += one["text"]
    choice.finish = one["finish_reason"]
    if one["logprobs"] is not None:
        assert one["logprobs"].keys() == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
        assert len({len(values) for values in one["logprobs"].values()}) == 1
        for name, values in one["logprobs"].items():
            choice.lists.setdefault(name, []).extend(values)


def _as_openai_reads(pieces: list[dict[str, Any]], stream: ReadStream, chat: bool) -> None:
    """Compare with openai's own client: its types, and its sum of the pieces."""
    if not chat:
        for piece in pieces:
            model_of(Completion, piece)
        return
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    for piece in pieces:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(json.dumps(piece), strict=True))
    if stream.error is None:
        final = state.current_completion_snapshot
        assert [choice.message.content for choice in final.choices] == [one.text for one in stream.choices]
        assert [choice.message.role for choice in final.choices] == ["assistant"] * len(stream.choices)
        assert [choice.finish_reason for choice in final.choices] == [one.finish for one in stream.choices]


def model_of(kind: Any, data: dict[str, Any]) -> Any:
    """Validate with a type of openai's; the nulls that its own service sends too are left out."""
    copy = json.loads(json.dumps(data))
    for choice in copy["choices"]:
        lists = choice.get("logprobs") or {}
        if kind is Completion and choice["finish_reason"] is None:  # in a stream
            choice["finish_reason"] = "stop"
        for name in ("token_logprobs", "top_logprobs"):
            if lists.get(name) and lists[name][0] is None:
                lists[name][0] = 0.0 if name == "token_logprobs" else {}
    return kind.model_validate_json(json.dumps(copy), strict=True)


def check_chat_entries(choice: ReadChoice, top: int) -> None:
    """Check the log-probabilities of a choice: joined bytes are the text, values are the model's."""
    data = bytes(byte for entry in choice.entries for byte in entry["bytes"])
    assert data.decode("utf-8", "replace") == choice.text
    for entry in choice.entries:
        assert entry.keys() == {"token", "logprob", "bytes", "top_logprobs"}
        assert len(entry["top_logprobs"]) == top
        values = [other["logprob"] for other in entry["top_logprobs"]]
        assert values == sorted(values, reverse=True)
        assert all(-9999.0 <= value <= 0 for value in [entry["logprob"], *values])
        if top:
            assert entry["logprob"] <= values[0]
