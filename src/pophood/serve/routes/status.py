"""GET /health and GET /metrics: whether the model computes, and the server's figures. (small: two routes)"""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import PlainTextResponse, Response

from pophood.openai.errors import MISSING, ApiError
from pophood.serve.client import EngineClient
from pophood.serve.protocol.responses import Json

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus's text format


def health(client: EngineClient) -> Response:
    """Return 200 while the model computes, 503 while there is no worker."""
    if client.fault is None:
        return Json({"status": "ok"})
    return Json({"status": "starting", "message": client.fault}, 503)


def metrics(text: Callable[[], str] | None) -> Response:
    """Return the figures as Prometheus reads them. Raises ApiError, 404, if none are kept."""
    if text is None:
        raise ApiError(404, "this server keeps no figures", MISSING)
    return PlainTextResponse(text(), headers={"content-type": CONTENT_TYPE})
