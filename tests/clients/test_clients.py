"""Real clients against `pophood serve smollm2`: they get what the library gives (`make test-clients`)."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from tests.clients.environments import python_of
from tests.clients.lm_eval_tasks import write_tasks
from tests.processes import run, started

pytestmark = [pytest.mark.full, pytest.mark.clients]  # environments of their own, and a network to make them

HERE = Path(__file__).parent
POPHOOD: list[str | Path] = [sys.executable, "-m", "pophood"]
QUESTION = [{"role": "user", "content": "What is the capital of Japan?"}]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its facts, as `--json` prints them."""

    facts: dict[str, Any]

    @property
    def arguments(self) -> list[str]:
        return [self.facts["base_url"], self.facts["key"], self.facts["model"]]


@pytest.fixture(scope="module")
def server(smollm2: Path) -> Iterator[Server]:
    ports = ["--port", "0", "--ollama-port", "0"]
    command = [*POPHOOD, "serve", smollm2, *ports, "--alias", "smollm2", "--json"]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Server(json.loads(process.stdout.readline()))


@pytest.fixture(scope="module")
def lm(smollm2: Path) -> pophood.LM:
    return pophood.load(smollm2)


def output_of(command: list[str | Path], **environment: str) -> str:
    ended = run(command, capture_output=True, text=True, env=os.environ | environment)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return ended.stdout


def answer_of(lm: pophood.LM, messages: list[dict[str, str]] = QUESTION) -> str:
    return "".join(token.text for token in lm.chat(messages, temperature=0, max_tokens=24))


@pytest.mark.parametrize("name", ["openai2", "openai3"])
def test_openai_python(name: str, server: Server, lm: pophood.LM) -> None:
    program = HERE / "programs" / "openai_calls.py"
    found = json.loads(output_of([python_of(name), program, *server.arguments]))
    answer = answer_of(lm)
    assert server.facts["model"] in found["models"]
    assert found["chat"] == found["streamed"] == found["bytes"] == answer
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert found["stream_usage"]["completion_tokens"] == usage["completion_tokens"]
    assert [role for role, _ in found["helper"]] == ["assistant", "assistant"]
    text = "One, two, three,"
    assert found["legacy"] == lm.generate(text, temperature=0, max_tokens=8).text
    ids = lm.tokenize(text)
    scores = lm.score(ids).log_probabilities
    ours = found["legacy_logprobs"]["token_logprobs"][: len(ids)]
    assert ours[0] is None and np.array_equal(np.array(ours[1:], np.float32), scores[1:])
    assert_embedded(lm, found["embeddings"])
    assert found["errors"] == {
        "model": ["NotFoundError", 404, "model_not_found"],
        "overflow": ["BadRequestError", 400, "context_length_exceeded"],
        "field": ["BadRequestError", 400, found["errors"]["field"][2]],
        "key": ["AuthenticationError", 401, "invalid_api_key"],
    }


def assert_embedded(lm: pophood.LM, vectors: list[list[float]]) -> None:
    """Compare the vectors of two texts with the mean of a trace's last rows, at length 1."""
    for text, vector in zip(("a cat", "a tax form"), vectors, strict=True):
        rows = lm.trace(text, ["final_norm"])["final_norm"].astype(np.float64)
        total = np.zeros(rows.shape[1])
        for row in rows:
            total += row
        mean = total / len(rows)
        wanted = (mean / math.sqrt(math.fsum((mean * mean).tolist()))).astype(np.float32)
        assert np.array(vector, np.float32).tobytes() == wanted.tobytes()


def test_langchain(server: Server, lm: pophood.LM) -> None:
    program = HERE / "programs" / "langchain_calls.py"
    found = json.loads(output_of([python_of("langchain"), program, *server.arguments]))
    system = {"role": "system", "content": "You answer in one sentence."}
    answer = answer_of(lm, [system, *QUESTION])
    assert found["text"] == found["streamed"] == answer
    assert found["usage"]["output_tokens"] == found["logprobs"]
    assert_embedded(lm, found["embeddings"])


def test_ollama(server: Server, lm: pophood.LM) -> None:
    program = HERE / "programs" / "ollama_calls.py"
    host = f"http://127.0.0.1:{server.facts['ollama_port']}"
    found = json.loads(output_of([python_of("ollama"), program, host]))
    assert found["model"] == server.facts["model"]
    assert found["window"] == server.facts["context"]
    assert "completion" in found["capabilities"]
    assert found["text"] == found["streamed"] == answer_of(lm)
    assert found["continued"] == lm.generate("One, two,", temperature=0, max_tokens=24).completion
    assert found["counts"][1] == found["counts"][2]
    assert found["done"][0] is True and found["done"][1] == found["done"][2]
    assert found["error"][0] == 404 and "nobody" in found["error"][1]


def test_llm(server: Server, lm: pophood.LM, tmp_path: Path) -> None:
    base_url, key, model = server.arguments
    llm = python_of("llm").parent / "llm"
    common: list[str | Path] = [llm, "openai", "endpoint", base_url, "--key", key]
    home = {"LLM_USER_PATH": str(tmp_path)}
    assert model in output_of([*common, "--models"], **home)
    options = ["-m", model, "-o", "temperature", "0", "-o", "max_tokens", "24"]
    for stream in ([], ["--no-stream"]):
        printed = output_of([*common, *options, *stream, QUESTION[0]["content"]], **home)
        assert printed.rstrip("\n") == answer_of(lm).rstrip("\n")


def test_the_printed_snippets_work_as_they_are_printed(smollm2: Path, tmp_path: Path) -> None:
    with started([*POPHOOD, "serve", smollm2, "--port", "0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline())
        text = "".join(lines)
        curl, program, llm = re.findall(r":\n\n((?:.+\n)+(?:\n(?=client)(?:.+\n)+)?)", text)[:3]
        answer = json.loads(output_of(["sh", "-c", curl]))
        # The snippets draw their tokens, so that an answer is not always right, but about Japan.
        assert "Japan" in answer["choices"][0]["message"]["content"]
        assert "Japan" in output_of([python_of("openai3"), "-c", program])
        words = shlex.split(llm)
        found = output_of([python_of("llm").parent / words[0], *words[1:]], LLM_USER_PATH=str(tmp_path))
        assert "Japan" in found


def test_lm_eval_scores_with_our_tokenizer_routes(server: Server, lm: pophood.LM, tmp_path: Path) -> None:
    """Three tasks of 200 items: every log-likelihood and greedy flag is the library's, to the last bit."""
    tasks = write_tasks(tmp_path)
    base_url, key, model = server.arguments
    given = {
        "model": model,
        "base_url": f"{base_url}/completions",
        "tokenizer_backend": "remote",
        "auth_token": key,
        "max_length": server.facts["context"],
    }
    command: list[str | Path] = [python_of("lm_eval"), "-m", "lm_eval", "run"]
    command += ["--model", "local-completions", "--tasks", ",".join(tasks), "--include_path", tmp_path]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in given.items())]
    command += ["--output_path", tmp_path / "out", "--log_samples"]
    output_of(command, OPENAI_API_KEY=key, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    compared = 0
    for task in tasks:
        (file,) = (tmp_path / "out").rglob(f"samples_{task}_*.jsonl")
        for sample in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            for request, response in zip(sample["arguments"].values(), sample["resps"], strict=True):
                context, continuation = request["arg_0"], request["arg_1"]
                value, greedy = response[0]
                assert_scored(lm, context, continuation, float(value), str(greedy) == "True")
                compared += 1
    assert compared == 200 * 4 + 200 * 4 + 200


def assert_scored(lm: pophood.LM, context: str, continuation: str, value: float, greedy: bool) -> None:
    """Compare lm-eval's sum over the continuation's tokens with the library's."""
    whole = lm.tokenize(context + continuation, add_start=False)
    start = len(lm.tokenize(context, add_start=False))
    wanted = lm.score(whole).log_probabilities[start:]
    assert value == sum(float(x) for x in wanted)
    with lm.engine.sequence() as sequence:
        found = lm.engine.summary([(sequence, whole[:-1])], rows="all", targets=whole[1:])
    assert found.target_ranks is not None
    assert greedy == bool((found.target_ranks[start - 1 :] == 1).all())
