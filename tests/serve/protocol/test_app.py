"""The app around the routes: errors of routing, OpenAPI, and what of FastAPI is off."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from pophood.openai.model import fingerprint
from pophood.serve.app import build_app
from tests import processes
from tests.conftest import ROOT
from tests.serve.protocol.service import Asking, Service


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/", 404),
        ("POST", "/v1/completions/", 404),
        ("GET", "/metrics", 404),  # nobody keeps figures here
    ],
)
def test_errors_of_routing_have_the_shape_of_all_errors(
    service: Service, method: str, path: str, status: int
) -> None:
    told = service.ask(path, method=method)
    assert told.status == status
    assert told.error["type"] in ("not_found_error", "invalid_request_error")


def test_health_needs_nothing(service: Service) -> None:
    told = service.ask("/health")
    assert (told.status, told.json) == (200, {"status": "ok"})


def test_figures_are_those_of_the_server(service: Service) -> None:
    app: Any = build_app(service.client, service.served, metrics=lambda: "pophood_up 1\n")
    asking = Asking("GET", "/metrics", b"")
    asyncio.run(app(asking.scope, asking.receive, asking.send))
    assert (asking.told.status, asking.told.body) == (200, b"pophood_up 1\n")
    assert asking.told.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_openapi_describes_every_route_and_field(service: Service) -> None:
    described = service.ask("/openapi.json").json
    assert described["openapi"].startswith("3.1")
    assert set(described["paths"]) == {
        *(
            "/v1/chat/completions",
            "/v1/chat/completions/render",
            "/v1/completions",
            "/v1/responses",
            "/v1/models",
        ),
        *("/v1/models/{model}", "/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize"),
        *("/tokenizer_info", "/v1/tokenizer_info", "/health", "/metrics", "/v1/embeddings"),
        *("/models/load", "/models/unload"),
    }
    schemas = described["components"]["schemas"]
    text = json.dumps(described)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas, f"{name} is named and not described"
    assert "temperature" in schemas["ChatRequest"]["properties"]
    assert "prompt" in schemas["CompletionRequest"]["required"]
    responses = [one["responses"] for path in described["paths"].values() for one in path.values()]
    assert all("422" not in statuses and "400" in statuses for statuses in responses)


def test_nothing_is_recorded_for_others() -> None:
    """FastAPI's telemetry is off, whatever the environment says."""
    code = """
from pophood.serve.openapi import described_app
app = described_app()
assert not app._native_telemetry.enabled(), "telemetry is on"
assert app._telemetry["auto_configure"] is False
"""
    environment = {
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "PATH": "/usr/bin",
    }
    result = processes.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_core_does_not_import_the_servers_libraries() -> None:
    code = """
import sys
import pophood, pophood.cli.app, pophood.model.lm
wrong = {"fastapi", "starlette", "uvicorn", "pydantic", "pophood.serve"} & set(sys.modules)
assert not wrong, wrong
"""
    processes.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_fingerprint_tells_weights_and_kernels_apart() -> None:
    prints = {
        fingerprint(version, weights, precision, isa)
        for version in ("1", "2")
        for weights in ("a", "b")
        for precision in ("auto", "q8")
        for isa in ("avx2", "avx512")
    }
    assert len(prints) == 16
    assert all(one.isascii() and " " not in one for one in prints)
