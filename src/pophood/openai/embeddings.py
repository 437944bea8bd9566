"""POST /v1/embeddings: one vector for each text or list of token ids, pooled from the rows of the final norm.

A model that writes texts was not trained to make vectors of them: similar texts have similar vectors, but a
model trained for embeddings finds what belongs together much better. The answer and `/v1/models` say so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pophood.errors import PophoodError
from pophood.generate import GenerateSettings
from pophood.generate.pooling import Pooling
from pophood.openai.asked import PromptJob, check_jobs
from pophood.openai.errors import invalid, of_pophood
from pophood.openai.inspecting import shortest
from pophood.openai.model import ServedModel
from pophood.openai.requests import NamedAdapter, read_ids
from pophood.openai.settings import adapters_of

USUAL: Pooling = "mean"
MOST_INPUTS = 2_048
NOTE = "this model was trained to write texts, not to embed them: a model trained for embeddings finds more"

Encoding = Literal["float", "base64"]
PARAM = "input"


@dataclass(frozen=True, slots=True)
class AskedEmbeddings:
    """The wishes of a request: one job for each vector."""

    jobs: tuple[PromptJob, ...]
    encoding: Encoding
    pooling: Pooling
    model: str
    fingerprint: str

    def answer(self, vectors: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
        """Return the JSON of the answer."""
        tokens = sum(len(job.prompt) for job in self.jobs)
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": encoded(vector, self.encoding)}
                for index, vector in enumerate(vectors)
            ],
            "model": self.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "pooling": self.pooling,
            "system_fingerprint": self.fingerprint,
        }


def asked_of(
    values: object,
    served: ServedModel,
    *,
    encoding: Encoding | None,
    pooling: Pooling | None,
    adapters: Sequence[NamedAdapter] | None,
) -> AskedEmbeddings:
    """Return what a request asks for. Raises ApiError for a wrong field and a text that is too long."""
    chosen = pooling or USUAL
    pairs = adapters_of(adapters, served)
    settings = GenerateSettings(seed=0, stop_ids=())
    jobs = tuple(
        PromptJob(ids, settings, pairs, generates=False, pools=chosen) for ids in _inputs(values, served)
    )
    check_jobs(jobs, served, PARAM)
    return AskedEmbeddings(jobs, encoding or "float", chosen, served.name, served.fingerprint)


def encoded(vector: NDArray[np.float32], encoding: Encoding) -> list[float] | str:
    """Return a vector as numbers, or as the base64 of its little-endian single-precision numbers.

    >>> encoded(np.array([0.5, 0.1], np.float32), "float"), encoded(np.array([0.5], np.float32), "base64")
    ([0.5, 0.1], 'AAAAPw==')
    """
    if encoding == "float":
        return shortest(vector)
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def described() -> Mapping[str, Any]:
    """Return what `/v1/models` says of embeddings."""
    return {"pooling": ["mean", "last"], "default_pooling": USUAL, "normalized": True, "note": NOTE}


def _inputs(values: object, served: ServedModel) -> list[tuple[int, ...]]:
    if isinstance(values, str):
        return [_of_text(values, served, PARAM)]
    if not isinstance(values, list) or not values:
        raise _no_input()
    if len(values) > MOST_INPUTS and not isinstance(values[0], int):
        raise invalid(f"{len(values):,} inputs; wanted {MOST_INPUTS:,} at most", PARAM)
    if all(isinstance(one, str) for one in values):
        return [_of_text(one, served, f"{PARAM}[{i}]") for i, one in enumerate(values)]
    if all(isinstance(one, list) for one in values):
        return [_of_ids(one, served, f"{PARAM}[{i}]") for i, one in enumerate(values)]
    if isinstance(values[0], int):
        return [_of_ids(values, served, PARAM)]
    raise _no_input()


def _no_input() -> Exception:
    wanted = "a text, a list of texts, a list of token ids, or a list of such lists"
    return invalid(f"{PARAM}: wanted {wanted}, not empty", PARAM, "invalid_value")


def _of_text(text: str, served: ServedModel, param: str) -> tuple[int, ...]:
    """Return the ids of a text, start tokens included; special tokens that it spells are ordinary text."""
    if not text:
        raise invalid(f"{param}: wanted one character or more", param, "invalid_value")
    try:
        return tuple(served.encode(text, parse_special=False))
    except PophoodError as error:
        raise of_pophood(error, param) from error


def _of_ids(value: object, served: ServedModel, param: str) -> tuple[int, ...]:
    ids = read_ids(value, param, served.vocab_size)
    if not ids:
        raise invalid(f"{param}: wanted one token id or more", param, "invalid_value")
    return ids
