"""The fields of requests as plain records, and their reading from JSON with strict types and ranges.

Fields that are in no record are refused or ignored by `fields.py`. Ranges of samplers are those of
`SamplingSettings`, checked when the settings are made (`settings.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, get_args, get_type_hints

from pophood.errors import short
from pophood.openai.errors import invalid
from pophood.openai.fields import check_others

LARGEST = 2**31 - 1  # of counts and token ids
MOST_NUMBER = 1e9  # single precision holds any sum of it
MOST_ADAPTERS = 16


class Kind(NamedTuple):
    """The type of a field in words, the types of Python that hold it, and its range if it is a number."""

    words: str
    types: tuple[type, ...]
    low: float = -math.inf
    high: float = math.inf

    def holds(self, value: object) -> bool:
        """Return whether a value is of this kind; true and false are no numbers."""
        if isinstance(value, bool):
            return bool in self.types or object in self.types
        if not isinstance(value, self.types):
            return False
        return not isinstance(value, int | float) or self.low <= value <= self.high

    @property
    def wanted(self) -> str:
        """The kind in words, with its range."""
        if math.isinf(self.low):
            return self.words
        return f"{self.words} from {self.low:,} to {self.high:,}"


ANYTHING = Kind("anything", (object,))
TEXT, FLAG = Kind("a text", (str,)), Kind("true or false", (bool,))
LIST, OBJECT = Kind("a list", (list,)), Kind("an object", (dict,))
NUMBER = Kind("a number", (int, float), -MOST_NUMBER, MOST_NUMBER)


def whole(low: int = -1, high: int = LARGEST) -> Kind:
    """Return the kind of a whole number."""
    return Kind("a whole number", (int,), low, high)


# Optional fields; None is the same as leaving one out. Those of type Any are checked where they are used.
Text = Annotated[str | None, TEXT]
Flag = Annotated[bool | None, FLAG]
Count = Annotated[int | None, whole()]
Number = Annotated[float | None, NUMBER]


class NamedAdapter(Protocol):
    """An adapter by name, in whatever record."""

    @property
    def name(self) -> str: ...

    @property
    def scale(self) -> float: ...


@dataclass(frozen=True, slots=True)
class AdapterFields:
    """One adapter by name, with the factor of its change."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratingFields:
    """The fields that chat and completions share."""

    model: Text = None
    # how much, how often, where it ends
    max_tokens: Count = None
    n_predict: Count = None
    min_tokens: Count = None
    n: Annotated[int | None, whole(1)] = None
    seed: Annotated[int | None, whole(-1, 2**64 - 1)] = None
    first_sample: Annotated[int | None, whole(0)] = None
    stop: Any = None
    stop_token_ids: Any = None
    ignore_eos: Flag = None
    skip_special_tokens: Flag = None
    # samplers, in pophood's names and llama.cpp's
    temperature: Number = None
    top_k: Count = None
    top_p: Number = None
    min_p: Number = None
    typical_p: Number = None
    repetition_penalty: Number = None
    repeat_penalty: Number = None
    presence_penalty: Number = None
    frequency_penalty: Number = None
    penalty_window: Count = None
    repeat_last_n: Count = None
    dry_multiplier: Number = None
    dry_base: Number = None
    dry_allowed_length: Count = None
    dry_window: Count = None
    dry_penalty_last_n: Count = None
    dry_breakers: Any = None
    dry_sequence_breakers: Any = None
    xtc_probability: Number = None
    xtc_threshold: Number = None
    logit_bias: Any = None
    order: Any = None
    samplers: Any = None
    # the form of the answer, in OpenAI's, llama.cpp's and vLLM's words
    response_format: Annotated[Mapping[str, Any] | None, OBJECT] = None
    json_schema: Any = None
    grammar: Text = None
    regex: Text = None
    guided_json: Any = None
    guided_regex: Text = None
    guided_grammar: Text = None
    guided_choice: Annotated[Sequence[Any] | None, LIST] = None
    structured_outputs: Annotated[Mapping[str, Any] | None, OBJECT] = None
    # the answer
    stream: Flag = None
    stream_options: Annotated[Mapping[str, Any] | None, OBJECT] = None
    return_progress: Flag = None
    inspect: Any = None
    adapters: Annotated[Sequence[AdapterFields] | None, LIST] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFields(GeneratingFields):
    """A conversation to answer."""

    messages: Annotated[Sequence[Mapping[str, Any]], LIST]
    max_completion_tokens: Count = None
    logprobs: Flag = None
    top_logprobs: Annotated[int | None, whole(0, 20)] = None
    chat_template_kwargs: Annotated[Mapping[str, Any] | None, OBJECT] = None
    add_generation_prompt: Flag = None
    tools: Annotated[Sequence[Any] | None, LIST] = None
    tool_choice: Any = None
    parallel_tool_calls: Flag = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionFields(GeneratingFields):
    """A text, texts, token ids, or lists of them, to continue."""

    prompt: Any
    echo: Flag = None
    logprobs: Annotated[int | None, whole(0, 20)] = None
    add_special_tokens: Flag = None
    parse_special: Flag = None
    best_of: Count = None


FieldsT = TypeVar("FieldsT", bound=GeneratingFields)


def read_fields(data: Mapping[str, Any], kind: type[FieldsT]) -> FieldsT:
    """Return the record of a request. Raises ApiError, 400, that names the first field that is wrong."""
    known = kinds_of(kind)  # type: ignore[arg-type]  # a class can be hashed
    for one in fields(kind):
        if one.default is MISSING and data.get(one.name) is None:
            message = f"Missing required parameter: '{one.name}'."
            raise invalid(message, one.name, "missing_required_parameter")
    given = {name: value for name, value in data.items() if name in known and value is not None}
    for name, value in given.items():
        _check(name, value, known[name])
    check_others({name: value for name, value in data.items() if name not in known}, known)
    if "adapters" in given:
        given["adapters"] = _adapters(given["adapters"])
    messages = given.get("messages")
    if messages is not None and not (messages and all(isinstance(one, dict) for one in messages)):
        raise invalid("messages: wanted a list of one message or more, each an object", "messages")
    return kind(**given)


@cache
def kinds_of(kind: type) -> dict[str, Kind]:
    """Return the kind of each field."""
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        found[name] = next((one for one in get_args(hint) if isinstance(one, Kind)), ANYTHING)
    return found


def _check(place: str, value: object, kind: Kind) -> None:
    if not kind.holds(value):
        raise invalid(f"{place}: got {short(value)}; wanted {kind.wanted}", place, "invalid_value")


def _adapters(values: list[Any]) -> tuple[AdapterFields, ...]:
    if len(values) > MOST_ADAPTERS:
        raise invalid(f"{len(values):,} adapters; wanted {MOST_ADAPTERS} at most", "adapters")
    found = []
    for number, value in enumerate(values):
        place = f"adapters[{number}]"
        _check(place, value, OBJECT)
        if unknown := sorted(set(value) - {"name", "scale"}):
            raise invalid(f"{place}: has {short(unknown[0])}; wanted name and scale", place)
        _check(f"{place}.name", value.get("name"), TEXT)
        _check(f"{place}.scale", value.get("scale", 1.0), NUMBER)
        found.append(AdapterFields(value["name"], float(value.get("scale", 1.0))))
    return tuple(found)


def read_ids(value: object, param: str, vocab_size: int) -> tuple[int, ...]:
    """Return a list of token ids. Raises ApiError for anything else, and for ids that the model lacks."""
    if not isinstance(value, list) or any(type(id_) is not int for id_ in value):
        raise invalid(f"{param}: wanted a list of token ids", param)
    if value and (min(value) < 0 or max(value) >= vocab_size):
        wrong = next(id_ for id_ in value if not 0 <= id_ < vocab_size)
        raise invalid(
            f"{param}: token id {short(wrong)} is not in the vocabulary (0 to {vocab_size - 1:,})", param
        )
    return tuple(value)


def read_texts(value: object, param: str, most: int, characters: int) -> tuple[str, ...]:
    """Return a text or a list of texts as a tuple; None gives none. Raises ApiError over the bounds."""
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or any(not isinstance(text, str) or not text for text in texts):
        raise invalid(f"{param}: wanted a text, or a list of texts, of one character or more each", param)
    if len(texts) > most or sum(map(len, texts)) > characters:
        raise invalid(f"{param}: wanted at most {most:,} texts of {characters:,} characters together", param)
    return tuple(texts)
