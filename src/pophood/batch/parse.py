"""From the bytes of a line to what it asks for: a completion, a chat, a score, or a request as OpenAI has it.

    {"prompt": "Once upon a time", "max_tokens": 20}                      continue a text, or token ids
    {"messages": [{"role": "user", "content": "Why?"}], "id": "q7"}       answer a conversation
    {"text": "Once upon a time", "score": true}                           log-probabilities of a text's tokens
    {"custom_id": "q7", "method": "POST", "url": "/v1/chat/completions", "body": {...}}

Settings have the names of `LM.stream`, OpenAI's or llama.cpp's. A line that is wrong has an error for answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pophood.batch.custom_ids import CustomIds
from pophood.batch.lines import MOST_BYTES, InputLine
from pophood.batch.model import BatchModel
from pophood.batch.own import generated
from pophood.batch.scoring import scored
from pophood.batch.shapes import BatchShape, LineRequest, OwnShape, Record
from pophood.batch.wrapped import FIELDS, wrapped
from pophood.errors import PophoodError, one_line, short
from pophood.openai.errors import SERVER, ApiError, invalid, of_pophood

KINDS = ("prompt", "messages", "text")  # one of them says what a line of pophood's own is
LATER = "embeddings come with a later version"


def read_line(line: InputLine, model: BatchModel, ids: CustomIds | None = None) -> LineRequest | Record:
    """Return what a line asks for, or the answer that says what is wrong with it.

    `ids` are those of the lines before it in the same batch.
    """
    shape: OwnShape | BatchShape = OwnShape(line)
    try:
        data = _object(line)
        shape = _shape(data, line, model.defaults.seed)
        if isinstance(shape, BatchShape):
            if ids is not None and (again := ids.add(shape.custom_id, line.number)) is not None:
                return shape.error(again)
            return wrapped(data, shape, model)
        fields = {name: value for name, value in data.items() if name not in ("id", "custom_id")}
        return _own(fields, shape, model)
    except ApiError as error:
        return shape.error(error)
    except PophoodError as error:
        return shape.error(of_pophood(error))
    except Exception as error:  # one line must not end a run of a million
        return shape.error(bug(error))


def early_answer(line: InputLine, seed: int, ids: CustomIds) -> Record | None:
    """Return the answer of a line that is wrong whatever the model is: too long, or with a custom_id again.

    None for all others. `seed` is the run's, and `ids` are those of the lines before it.
    """
    shape: OwnShape | BatchShape = OwnShape(line)
    if line.data is None:
        return shape.error(_too_long(line))
    try:
        shape = _shape(_object(line), line, seed)
    except Exception:  # `read_line` says what is wrong
        return None
    again = ids.add(shape.custom_id, line.number) if isinstance(shape, BatchShape) else None
    return None if again is None else shape.error(again)


def bug(error: Exception) -> ApiError:
    """Return the error of a line whose reading or answering failed in a way that nobody foresaw."""
    words = f"a bug in pophood, please report it: {type(error).__name__}: {one_line(error)}"
    return ApiError(500, words, SERVER, code="internal_error")


def _object(line: InputLine) -> dict[str, Any]:
    if line.data is None:
        raise _too_long(line)
    try:
        data = json.loads(line.data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, numbers of 5,000 digits too
        raise invalid(f"the line is not JSON: {one_line(error)}", code="invalid_json") from error
    if not isinstance(data, dict):
        raise invalid(f"the line is {short(data)}; wanted a JSON object", code="invalid_json")
    return data


def _too_long(line: InputLine) -> ApiError:
    return invalid(f"the line has {line.length:,} bytes; wanted at most {MOST_BYTES:,}", code="too_long")


def _no_constant(name: str) -> float:
    raise invalid(f"the line is not JSON: {name} is no number of JSON", code="invalid_json")


def _shape(data: Mapping[str, Any], line: InputLine, seed: int) -> OwnShape | BatchShape:
    """Return how the line is answered. Raises ApiError for an id of another type than text or number."""
    if any(name in data for name in FIELDS[1:]):
        custom = data.get("custom_id")
        if not isinstance(custom, str):
            raise invalid(f"custom_id: got {short(custom)}; wanted a text", "custom_id")
        return BatchShape(line, custom, seed)
    given = [data[name] for name in ("id", "custom_id") if data.get(name) is not None]
    if len(given) > 1:
        raise invalid("id and custom_id mean the same: give one", "custom_id")
    if given and (isinstance(given[0], bool) or not isinstance(given[0], str | int)):
        raise invalid(f"id: got {short(given[0])}; wanted a text or a whole number", "id")
    return OwnShape(line, given[0] if given else None)


def _own(data: dict[str, Any], shape: OwnShape, model: BatchModel) -> LineRequest:
    if "input" in data:
        raise invalid(f"input: {LATER}", "input", "unsupported_parameter")
    kinds = [name for name in KINDS if name in data]
    if len(kinds) != 1:
        got = " and ".join(kinds) or "none of them"
        raise invalid(f"the line has {got}; wanted one of prompt, messages, text")
    score = data.get("score")
    if score not in (None, True, False) or (isinstance(score, int) and not isinstance(score, bool)):
        raise invalid(f"score: got {short(score)}; wanted true or false", "score")
    if score:
        if kinds == ["messages"]:
            raise invalid("a conversation is answered, not scored: give its text as `text`", "score")
        return scored(data, shape, model)
    if kinds == ["text"]:
        raise invalid('text is scored with "score": true; a text to continue is called `prompt`', "text")
    data.pop("score", None)
    return generated(data, shape, model)
