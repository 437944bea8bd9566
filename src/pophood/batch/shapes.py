"""How the answers and errors of lines are written: in pophood's own shape, or in that of OpenAI's batches.

Both begin with the number and the hash of the line that they answer. No time of the clock, no random number
and nothing that depends on other lines is in an answer: a run that was resumed writes the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pophood.batch.lines import InputLine
from pophood.generate import Token
from pophood.generate.request import Running
from pophood.openai.asked import PromptJob
from pophood.openai.errors import ApiError

Record = dict[str, Any]  # an answer, as JSON has it
ID_DIGITS = 24


class JobResult(NamedTuple):
    """The result for one prompt of a line: its scores are in `running`."""

    running: Running
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class OwnShape:
    """{"line": 1, "hash": "...", "id": "q7", ...}; an error is {"error": {"message", "param", "code"}}."""

    line: InputLine
    id: str | int | None = None

    def answer(self, body: Mapping[str, Any]) -> Record:
        return self._head() | dict(body)

    def error(self, error: ApiError) -> Record:
        told = {"message": error.message, "param": error.param, "code": error.code, **error.extra}
        return self._head() | {"error": {name: value for name, value in told.items() if value is not None}}

    def _head(self) -> Record:
        named = {} if self.id is None else {"id": self.id}
        return head_of(self.line) | named


@dataclass(frozen=True, slots=True)
class BatchShape:
    """OpenAI's: {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error": null}."""

    line: InputLine
    custom_id: str
    seed: int  # of the run

    @property
    def stamp(self) -> str:
        """The part of an id that belongs to this line and run."""
        text = f"{self.seed} {self.line.number} {self.line.digest}"
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    def answer(self, body: Mapping[str, Any]) -> Record:
        return self._response(200, body)

    def error(self, error: ApiError) -> Record:
        return self._response(error.status, error.body)

    def _response(self, status: int, body: Mapping[str, Any]) -> Record:
        response = {"status_code": status, "request_id": f"req_{self.stamp}", "body": dict(body)}
        return head_of(self.line) | {
            "id": f"batch_req_{self.stamp}",
            "custom_id": self.custom_id,
            "response": response,
            "error": None,
        }


@dataclass(frozen=True, slots=True)
class LineRequest:
    """A line that was understood: prompts to compute, and the body of the answer that their results make."""

    shape: OwnShape | BatchShape
    jobs: tuple[PromptJob, ...]
    body: Callable[[Sequence[JobResult]], Mapping[str, Any]]

    def answer(self, results: Sequence[JobResult]) -> Record:
        """Return the answer; `results` has one for each job."""
        return self.shape.answer(self.body(results))


def head_of(line: InputLine) -> Record:
    """Return the fields with which every answer begins: the line that it answers."""
    return {"line": line.number, "hash": line.digest}


def failed(record: Mapping[str, Any]) -> bool:
    """Return whether an answer is an error, in either shape."""
    response = record.get("response")
    wrapped = isinstance(response, Mapping) and response.get("status_code") != 200
    return record.get("error") is not None or wrapped


def message_of(record: Mapping[str, Any]) -> str:
    """Return what an error says."""
    error = record.get("error")
    if error is None and isinstance(record.get("response"), Mapping):
        error = record["response"]["body"].get("error")
    return str(error["message"]) if isinstance(error, Mapping) else "failed"


def finite(value: float | None) -> float | None:
    """Return a number as JSON has it: None for infinities and NaN."""
    return value if value is not None and math.isfinite(value) else None
