"""/v1/embeddings: the vectors are those of `LM.trace`'s final norm, pooled; all forms of input and answer."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import urllib.request
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from openai.types import CreateEmbeddingResponse

import pophood
from tests.serve.protocol.service import Service

PATH = "/v1/embeddings"
IDS = [5, 9, 13, 2, 7, 7, 30, 11, 4, 60]
LONG = [(7 * i) % 90 for i in range(200)]


def expected(lm: pophood.LM, ids: list[int], pooling: str = "mean") -> NDArray[np.float32]:
    """Pool the rows of a trace in NumPy, as docs/serve.md says."""
    rows = lm.trace(ids, ["final_norm"])["final_norm"].astype(np.float64)
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    vector = total / len(rows) if pooling == "mean" else rows[-1]
    length = math.sqrt(math.fsum((vector * vector).tolist()))
    return (vector / length).astype(np.float32)


def vectors(told: Any) -> list[NDArray[np.float32]]:
    assert told.status == 200, told.body
    CreateEmbeddingResponse.model_validate(told.json, strict=True)
    assert [one["index"] for one in told.json["data"]] == list(range(len(told.json["data"])))
    return [np.array(one["embedding"], np.float32) for one in told.json["data"]]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_vectors_equal_a_pooled_trace_beside_other_requests(
    service: Service, alone: pophood.LM, pooling: str
) -> None:
    others: list[tuple[str, Any]] = [
        ("/v1/completions", {"prompt": "Once", "max_tokens": 40, "seed": n}) for n in range(4)
    ]
    texts = [IDS, LONG, [3], IDS]
    asked = {"input": texts, "pooling": pooling}
    told = service.ask_all([others[0], (PATH, asked), *others[1:]])
    found = vectors(told[1])
    for vector, ids in zip(found, texts, strict=True):
        assert vector.tobytes() == expected(alone, ids, pooling).tobytes()
    assert told[1].json["pooling"] == pooling
    assert told[1].json["usage"] == {"prompt_tokens": 221, "total_tokens": 221}
    assert all(other.status == 200 for other in told[2:])


def test_mean_is_the_default_and_texts_have_their_start_token(started: Service) -> None:
    lm = pophood.load(started.lm.path)
    told = started.ask(PATH, {"input": ["Hello there", "<|im_start|>"], "model": "tiny"})
    assert told.json["pooling"] == "mean"
    for vector, text in zip(vectors(told), ("Hello there", "<|im_start|>"), strict=True):
        assert vector.tobytes() == expected(lm, lm.tokenize(text)).tobytes()


def test_numbers_are_floats_unless_base64_is_asked_for(service: Service, alone: pophood.LM) -> None:
    wanted = expected(alone, IDS)
    told = service.ask(PATH, {"input": IDS}).json["data"][0]["embedding"]
    assert [repr(number) for number in told] == [repr(float(str(x))) for x in wanted]
    packed = service.ask(PATH, {"input": IDS, "encoding_format": "base64"}).json["data"][0]["embedding"]
    assert base64.b64decode(packed) == wanted.astype("<f4").tobytes()


def test_openai_python_reads_both(service: Service, alone: pophood.LM) -> None:
    with service.listening() as port:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        text = client.embeddings.create(model="tiny", input="Hello there")  # asks for base64 by itself
        ids = client.embeddings.create(model="tiny", input=[IDS, IDS[:3]], encoding_format="float")
    assert np.array(text.data[0].embedding, np.float32).tobytes() == (
        expected(alone, alone.tokenize("Hello there")).tobytes()
    )
    for one, own in zip(ids.data, (IDS, IDS[:3]), strict=True):
        assert np.array(one.embedding, np.float32).tobytes() == expected(alone, own).tobytes()
    assert ids.usage.prompt_tokens == 13


def test_a_plain_client_reads_floats(service: Service, alone: pophood.LM) -> None:
    body = json.dumps({"input": "Hello", "user": "me"}).encode()
    with service.listening() as port:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{PATH}", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            (one,) = json.load(response)["data"]
    vector = np.array(one["embedding"], np.float32)
    assert vector.tobytes() == expected(alone, alone.tokenize("Hello")).tobytes()


def test_adapters_change_the_vector(service: Service) -> None:
    plain, adapted = (
        vectors(service.ask(PATH, {"input": IDS, "adapters": adapters}))[0]
        for adapters in ([], [{"name": "one"}])
    )
    assert plain.tobytes() != adapted.tobytes()
    assert service.ask(PATH, {"input": IDS, "adapters": [{"name": "none"}]}).status == 404


def test_a_cached_prompt_gives_the_same_bits(service: Service, alone: pophood.LM) -> None:
    service.complete(LONG, max_tokens=2)
    for pooling in ("last", "mean", "last"):
        (vector,) = vectors(service.ask(PATH, {"input": LONG, "pooling": pooling}))
        assert vector.tobytes() == expected(alone, LONG, pooling).tobytes()


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({}, "input", "Missing required parameter: 'input'"),
        ({"input": ""}, "input", "wanted one character or more"),
        ({"input": []}, "input", "not empty"),
        ({"input": [[]]}, "input[0]", "one token id or more"),
        ({"input": ["a", 1]}, "input", "wanted a text"),
        ({"input": [1, "a"]}, "input", "wanted a list of token ids"),
        ({"input": [10**6]}, "input", "token id 1000000 is not in the vocabulary"),
        ({"input": ["a"] * 2049}, "input", "2,049 inputs; wanted 2,048 at most"),
        ({"input": "a", "dimensions": 8}, "dimensions", "`dimensions` is not supported"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "got 'int8'"),
        ({"input": "a", "pooling": "max"}, "pooling", "got 'max'"),
        ({"input": "a", "normalise": True}, "normalise", "Unrecognized request argument"),
    ],
)
def test_what_is_wrong_is_named(service: Service, fields: Any, param: str, said: str) -> None:
    told = service.ask(PATH, fields)
    assert told.status == 400 and told.error["param"] == param
    assert said in told.error["message"]


def test_a_text_that_is_too_long_is_refused_with_both_counts(service: Service) -> None:
    told = service.ask(PATH, {"input": [IDS, [1] * 257]})
    assert told.status == 400 and told.error["code"] == "context_length_exceeded"
    assert (told.error["n_ctx"], told.error["n_prompt_tokens"]) == (256, 257)
    assert len(vectors(service.ask(PATH, {"input": [1] * 256}))) == 1


def test_a_client_that_leaves_ends_the_work(service: Service) -> None:
    async def leave() -> None:
        asking, call = service.begin(PATH, {"input": [LONG[i:] + LONG[:i] for i in range(200)]})
        await asyncio.sleep(0.05)
        asking.leave()
        await call
        assert asking.told.status == 0
        for _ in range(500):
            if not service.client.open_requests and not service.client.gauges.running:
                return
            await asyncio.sleep(0.01)
        raise TimeoutError

    service.run(leave())


def test_the_model_says_what_its_vectors_are(service: Service) -> None:
    model = service.ask("/v1/models").json["data"][0]
    assert model["capabilities"]["embeddings"] is True
    assert model["embeddings"]["default_pooling"] == "mean"
    assert "not to embed" in model["embeddings"]["note"]
