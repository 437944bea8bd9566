"""Layouts of training data: turn the fields of a record into texts and conversations.

A record becomes one item or more; an item is a plain text, or messages of which some are learned. No files,
tokens or templates.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from pophood.train.data.read.json_records import Repeated, parse
from pophood.train.settings import LAYOUTS

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One example before it is encoded: a plain text or a conversation."""

    text: str | None = None
    messages: tuple[Message, ...] = ()
    paired: bool = False  # one question with one answer, both plain text
    weights: tuple[bool | None, ...] = ()  # learn each message? None: by its role; (): all by their roles
    n_prompt: int = 0  # messages at the start that are the prompt; answers among them are not learned


class WrongRecord(Exception):
    """Raised for a record that does not fit its layout; the message is a predicate: "has no 'prompt'"."""


# Fields that say whether a message is learned, as in OpenAI, axolotl, ms-swift and LLaMA-Factory.
_NUMBERS, _SWITCHES = ("weight", "loss_weight", "loss_scale"), ("train", "loss")
_WEIGHTS = frozenset((*_NUMBERS, *_SWITCHES))
_RENDERED = frozenset(("messages", "prompt", "completion"))  # lists of messages, which may have more fields
# Fields of a message that are read, or do no harm if a template does not read them.
_MESSAGE = _WEIGHTS | {"role", "content", "name", "id", "tool_calls", "tool_call_id"}
_TURN = _WEIGHTS | {"from", "value", "role", "content", "id"}
_INSTANCE = frozenset(("input", "output"))
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}


def layout_of(value: Any, columns: Mapping[str, str]) -> str | None:
    """Return the first layout whose required fields a record has, or None.

    >>> layout_of({"instruction": "Add.", "input": "1 2", "output": "3"}, {})
    'alpaca'
    """
    if not isinstance(value, Mapping):
        return None
    for layout, rule in _RULES.items():
        if all(columns.get(name, name) in value for name in rule.required):
            return layout
    return None


def items_of(value: Any, layout: str, columns: Mapping[str, str]) -> tuple[Item, ...]:
    """Return the items of one record. Raises WrongRecord for a missing field or a wrong type."""
    if not isinstance(value, Mapping):
        raise WrongRecord(f"is {_kind(value)}; wanted an object: {LAYOUTS[layout]}")
    rule = _RULES[layout]
    missing = [name for name in rule.required if columns.get(name, name) not in value]
    if missing:
        has = ", ".join(repr(str(key)[:30]) for key in list(value)[:6]) or "nothing"
        raise WrongRecord(f"has no {columns.get(missing[0], missing[0])!r}; it has {has}")
    _check_once(value, read_fields(layout, columns))
    return tuple(rule.make({name: value.get(columns.get(name, name)) for name in rule.fields}))


def _check_once(value: Mapping[str, Any], read: Set[str], where: str = "") -> None:
    """Raise WrongRecord for an object that repeats a name that is read: its value would be ambiguous."""
    twice = value.names & read if isinstance(value, Repeated) else ()
    if twice:
        raise WrongRecord(f"names {min(twice)!r} more than once{where}; wanted once")


def read_fields(layout: str, columns: Mapping[str, str]) -> set[str]:
    """Return the fields that are read from a layout's records, by their names in the data."""
    return {columns.get(name, name) for name in _RULES[layout].fields}


def unused_fields(
    value: Mapping[str, Any], layout: str, columns: Mapping[str, str], template: str
) -> Iterator[str]:
    """Yield the fields of a record that nothing reads, also in its messages ("messages[].mood").

    `template` is the source of the chat template, which may read any field of a message. Texts in messages
    are not reported here: after rendering it is known whether they are in the result.
    """
    read_here = read_fields(layout, columns)
    yield from (key for key in value if key not in read_here)
    for name in ("messages", "prompt", "completion", "conversations", "instances"):
        inside = value.get(columns.get(name, name)) if name in _RULES[layout].fields else None
        keys = dict.fromkeys(
            key
            for part in (inside if isinstance(inside, list) else ())
            if isinstance(part, Mapping)
            for key, entry in part.items()
            if entry not in (None, "", [], {}) and not (isinstance(entry, str) and name in _RENDERED)
        )
        known = _TURN if name == "conversations" else _INSTANCE if name == "instances" else _MESSAGE
        for key in keys:
            read = name in _RENDERED and re.search(rf"\b{re.escape(key)}\b", template)
            if key not in known and not read:
                yield f"{columns.get(name, name)}[].{key}"


def prompt_of(item: Item) -> tuple[str, ...]:
    """Return the texts before the first answer: the system text and the user's first messages.

    A plain text has none.

    >>> prompt_of(Item(messages=({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"})))
    ('Hi',)
    """
    system: list[str] = []
    asked: list[str] = []
    for message in item.messages:
        words = list(_texts(message.get("content")))
        if message["role"] == "assistant":
            if asked:
                break
        elif message["role"] in ("system", "developer"):
            system += [] if asked else words
        else:
            asked += words
    return (*system, *asked) if asked else ()


def _texts(content: object) -> Iterator[str]:
    """Yield the texts of a message's content: itself, or those of its parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part.get("text") if isinstance(part, Mapping) else part)


def _text(fields: Mapping[str, Any]) -> Iterator[Item]:
    yield Item(text=_words(fields["text"], "text"))


def _prompt(fields: Mapping[str, Any]) -> Iterator[Item]:
    if isinstance(fields["prompt"], list):  # TRL's conversational form: both sides are lists of messages
        both = [*fields["prompt"], *_list(fields["completion"], "completion")]
        yield from _messages({"messages": both}, n_prompt=len(fields["prompt"]))
        return
    prompt, answer = _words(fields["prompt"], "prompt"), _words(fields["completion"], "completion")
    yield Item(messages=_exchange(fields.get("system"), prompt, answer), paired=True)


def _alpaca(fields: Mapping[str, Any]) -> Iterator[Item]:
    question = _question(fields["instruction"], fields.get("input"))
    answer = _words(fields["output"], "output")
    yield Item(messages=_exchange(fields.get("system"), question, answer), paired=True)


def _tasks(fields: Mapping[str, Any]) -> Iterator[Item]:
    for number, instance in enumerate(_list(fields["instances"], "instances"), 1):
        if not isinstance(instance, Mapping) or "output" not in instance:
            raise WrongRecord(f"has no 'output' in instance {number}")
        question = _question(fields["instruction"], instance.get("input"))
        answer = _words(instance["output"], f"output of instance {number}")
        yield Item(messages=_exchange(None, question, answer), paired=True)


def _messages(fields: Mapping[str, Any], n_prompt: int = 0) -> Iterator[Item]:
    _check_tools(fields.get("tools"))
    messages: list[Message] = []
    weights: list[bool | None] = []
    for number, message in enumerate(_list(fields["messages"], "messages"), 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise WrongRecord(f"has no 'role' in message {number}")
        _check_once(message, _MESSAGE, f" in message {number}")
        if message.get("content") is None and not (message.get("tool_calls") or message.get("function_call")):
            raise WrongRecord(f"has no 'content' in message {number}")
        weights.append(_weight(message, f"message {number}"))
        messages.append({key: value for key, value in message.items() if key not in _WEIGHTS})
    yield _conversation(messages, weights, n_prompt)


def _sharegpt(fields: Mapping[str, Any]) -> Iterator[Item]:
    _check_tools(fields.get("tools"))
    messages = _system(fields.get("system"))
    weights: list[bool | None] = [None for _ in messages]
    for number, turn in enumerate(_list(fields["conversations"], "conversations"), 1):
        if not isinstance(turn, Mapping):
            raise WrongRecord(f"has {_kind(turn)} as turn {number}; wanted an object with 'from' and 'value'")
        _check_once(turn, _TURN, f" in turn {number}")
        speaker, words = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if not isinstance(speaker, str) or words is None:
            raise WrongRecord(f"has no 'from' and 'value' in turn {number}")
        role = _SPEAKERS.get(speaker.lower())
        if role is None:
            raise WrongRecord(f"has an unknown speaker {speaker[:30]!r} in turn {number}")
        if role == "system" and _is_blank(words):
            continue
        weights.append(_weight(turn, f"turn {number}"))
        messages.append({"role": role, "content": _words(words, f"value of turn {number}")})
    yield _conversation(messages, weights)


class _Rule(NamedTuple):
    """The fields of a layout, and the function that makes items of their values."""

    make: Callable[[Mapping[str, Any]], Iterator[Item]]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        return self.required + self.optional


_RULES = {  # in the order in which they are tried
    "messages": _Rule(_messages, ("messages",), ("tools",)),
    "sharegpt": _Rule(_sharegpt, ("conversations",), ("system", "tools")),
    "tasks": _Rule(_tasks, ("instruction", "instances")),
    "alpaca": _Rule(_alpaca, ("instruction", "output"), ("input", "system")),
    "prompt": _Rule(_prompt, ("prompt", "completion"), ("system",)),
    "text": _Rule(_text, ("text",)),
}


def _conversation(messages: list[Message], weights: list[bool | None], n_prompt: int = 0) -> Item:
    if not any(message["role"] == "assistant" for message in messages[n_prompt:]):
        roles = ", ".join(dict.fromkeys(repr(message["role"][:20]) for message in messages[n_prompt:]))
        raise WrongRecord(
            f"has no message of the assistant: nothing to learn; its roles are {roles or 'none'}"
        )
    weighted = any(weight is not None for weight in weights)
    return Item(messages=tuple(messages), weights=tuple(weights) if weighted else (), n_prompt=n_prompt)


def _check_tools(tools: object) -> None:
    if tools and not _is_blank(tools) and tools != "[]":
        raise WrongRecord(
            "has 'tools', on which pophood does not train: remove the field to train without them"
        )


def _weight(message: Mapping[str, Any], where: str) -> bool | None:
    """Return whether a message is to be learned, or None if it does not say so; null counts as absent."""
    weights: dict[str, bool] = {}
    for name in (*_NUMBERS, *_SWITCHES):
        value = message.get(name)
        if value is None:
            continue
        if name in _NUMBERS and (isinstance(value, bool) or value not in (0, 1)):
            raise WrongRecord(f"has {_shown(value)} as {name} of {where}; wanted 0 (not learned) or 1")
        if name in _SWITCHES and not isinstance(value, bool):
            raise WrongRecord(f"has {_shown(value)} as {name} of {where}; wanted true or false")
        weights[name] = bool(value)
    if message.get("train_detail"):
        raise WrongRecord(
            f"has train_detail in {where}: parts of a message cannot be weighted; remove the field"
        )
    if len(set(weights.values())) > 1:
        both = " and ".join(f"{name} {_shown(message[name])}" for name in weights)
        raise WrongRecord(f"has {both} in {where}: leave out all but one of them")
    return next(iter(weights.values()), None)


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:40]


def _system(value: object) -> list[Message]:
    """Return a system text as messages: one, or none if it is missing or blank."""
    return [] if _is_blank(value) else [{"role": "system", "content": _words(value, "system")}]


def _exchange(system: object, question: str, answer: str) -> tuple[Message, ...]:
    return (*_system(system), {"role": "user", "content": question}, {"role": "assistant", "content": answer})


def _question(instruction: object, extra: object) -> str:
    """Return an instruction and its input as one message, with a blank line between them."""
    question = _words(instruction, "instruction")
    if _is_blank(extra):
        return question
    return f"{question}\n\n{_words(extra, 'input')}"


def _is_blank(value: object) -> bool:
    """Return whether a value is null, NaN (which pandas writes for a missing value), or white space."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return missing or (isinstance(value, str) and not value.strip())


def _words(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise WrongRecord(f"has {_kind(value)} as {name}; wanted text")
    if not value.strip():
        raise WrongRecord(f"has an empty {name}")
    if "\0" in value:
        raise WrongRecord(f"has a NUL character in {name}")
    return value


def _list(value: object, name: str) -> list[Any]:
    """Return a list; the JSON text of one, as in a cell of a table, is parsed."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value, why = parse(value)
        if why:
            raise WrongRecord(f"has a text as {name} that {why}; wanted a list")
    if not isinstance(value, list) or not value:
        raise WrongRecord(f"has {_kind(value)} as {name}; wanted a list that is not empty")
    return value


def _kind(value: object) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    names = {
        dict: "an object",
        Repeated: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")
