"""docs/serve.md: it names every field and code, and its examples work as they are printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

import pytest

import pophood
from pophood.openai.fields import IGNORED, REFUSED
from pophood.serve.messages import Failed, FailureKind
from pophood.serve.protocol.assembly import of_failure
from pophood.serve.protocol.response_fields import ResponsesRequest
from pophood.serve.protocol.schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    StreamOptions,
    TokenizeRequest,
)
from tests import processes
from tests.conftest import ROOT
from tests.needs import tool
from tests.serve.protocol.service import LOCAL, Service
from tests.test_adapters import random_adapter

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python|json)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
# Without servers, their second models and other programs: tests/docs.
EXAMPLES = [(kind, text) for kind, text in BLOCKS if kind == "python" or "curl -s $POPHOOD_URL/v1" in text]


def named() -> set[str]:
    """Return everything that the page writes as code."""
    return set(re.findall(r"[A-Za-z_]\w*", " ".join(re.findall(r"`([^`\n]+)`", PAGE))))


def test_every_field_is_named() -> None:
    kinds = (
        *(ChatRequest, CompletionRequest, ResponsesRequest),
        *(TokenizeRequest, DetokenizeRequest, StreamOptions),
    )
    fields = {name for kind in kinds for name in kind.model_fields}
    assert not (fields | REFUSED.keys() | IGNORED) - named()


def test_every_refused_and_ignored_field_stands_where_it_belongs() -> None:
    refused = PAGE.partition("### Fields that are refused")[2].partition("### Fields that are ignored")[0]
    ignored = PAGE.partition("### Fields that are ignored")[2].partition("Every other field")[0]
    assert set(re.findall(r"`(\w+)`", refused)) - {"null", "false", "n", "code", "unsupported_parameter"} == (
        REFUSED.keys()
    )
    assert set(re.findall(r"`(\w+)`", ignored)) == IGNORED


def test_every_code_is_named() -> None:
    sources = [path for name in ("serve", "openai") for path in (ROOT / "src/pophood" / name).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    codes = set(re.findall(r'"(\w+_(?:parameter|value|json|template|found|full|exceeded))"', text))
    kinds: tuple[FailureKind, ...] = get_args(FailureKind)
    codes |= {code for kind in kinds if (code := of_failure(Failed(1, kind, ""), "prompt").code)}
    assert codes <= named()


@pytest.fixture(scope="module")
def port(chatml_folder: os.PathLike[str]) -> Iterator[int]:
    """Serve a random model under the name of the examples, with their adapter."""
    lm = pophood.load(chatml_folder)
    adapters = {"notes": random_adapter(lm, 1)}
    with Service(lm, adapters=adapters, served={"name": "smollm2"}) as service, service.listening() as port:
        yield port


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_works_as_it_is_printed(port: int, number: int) -> None:
    kind, text = EXAMPLES[number]
    environment = os.environ | {"POPHOOD_URL": f"http://{LOCAL}:{port}", "POPHOOD_API_KEY": "none"}
    text = "\n".join(line for line in text.splitlines() if not line.startswith("export "))
    command = [sys.executable, "-W", "error", "-c", text]
    if kind == "sh":
        tool("curl")
        command = ["sh", "-e", "-c", text]
    result = processes.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    if "temprature" in text:
        assert result.stdout.strip() in PAGE, "the answer that the page shows"
    else:
        assert result.stdout
        assert '"error"' not in result.stdout


def test_the_call_that_is_shown_is_one_of_the_function() -> None:
    asked, answered = (json.loads(text) for kind, text in BLOCKS if kind == "json" and "get_weather" in text)
    (tool,), (call,) = ChatRequest.model_validate(asked).tools or [], answered["tool_calls"]
    assert call["function"]["name"] == tool["function"]["name"]
    assert (
        json.loads(call["function"]["arguments"]).keys()
        == tool["function"]["parameters"]["properties"].keys()
    )
