"""The description of the server as OpenAPI, at /openapi.json, and FastAPI without what the server leaves out.

Bodies are read without FastAPI, so their schemas are added to its description here. Its documentation loads
scripts from elsewhere, and its telemetry can send figures where the environment says: both are off.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig
from starlette.responses import Response

from pophood import __version__
from pophood.serve.described import ANSWERS
from pophood.serve.protocol.schemas import Body, as_schema

TELEMETRY_OFF: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
STATUSES = {
    400: "a wrong field, or a prompt that is too long",
    401: "no key, or a wrong one",
    403: "a Host or Origin that is not served",
    404: "an unknown model or adapter",
    405: "another method",
    408: "the headers or the body did not arrive in time",
    409: "no room for a model, or it computes requests",
    413: "a body that is too large",
    415: "a body that is not JSON",
    431: "headers that are too large",
    429: "too many requests wait",
    500: "the model gave a number that is none, or a bug",
    503: "the server is ending, or its model is gone",
}


class DescribedApp(FastAPI):
    """FastAPI whose description has the schemas of the bodies too."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = get_openapi(title=self.title, version=self.version, routes=self.routes)
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            for kind in Body.__subclasses__():
                for one in (kind, *kind.__subclasses__()):
                    own, others = as_schema(one)
                    schemas |= {one.__name__: own, **others}
            schemas["Error"] = ERROR_SCHEMA
            # FastAPI's own errors of validation never come.
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for path in schema["paths"].values():
                for one in path.values():
                    one["responses"].pop("422", None)
            self.openapi_schema = schema
        return self.openapi_schema


def described_app() -> FastAPI:
    """Return an app without routes."""
    return DescribedApp(
        title="pophood serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=TELEMETRY_OFF,
    )


def operation(path: str, kind: type[Body] | None = None) -> dict[str, Any]:
    """Return the arguments of a route: the schemas of its body, of its answer and of its errors."""
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[int, Any] = {
        status: {"description": text, "content": error} for status, text in STATUSES.items()
    }
    content = {one: {"schema": schema} for one, schema in ANSWERS[path].items()}
    responses[200] = {"description": "the answer", "content": content}
    arguments: dict[str, Any] = {
        "response_model": None,
        "response_class": Response,
        "responses": responses,
    }
    if kind is not None:
        reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
        body = {"required": True, "content": {"application/json": {"schema": reference}}}
        arguments["openapi_extra"] = {"requestBody": body}
    return arguments
