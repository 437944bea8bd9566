"""GET /: the page that a browser's link leads to. (small: one page)"""

from __future__ import annotations

from starlette.responses import HTMLResponse, Response

from pophood.openai.model import ServedModel
from pophood.web import render_page

PLACES = {
    "/v1/models": "the model and its window",
    "/health": "whether it computes",
    "/metrics": "figures for Prometheus",
    "/openapi.json": "every route and field",
}
HEADERS = {"cache-control": "no-store", "referrer-policy": "no-referrer", "x-frame-options": "DENY"}


def start(served: ServedModel) -> Response:
    """Return the page: facts about the model, and where to go on."""
    facts = {
        "Model": served.name,
        "Also as": ", ".join(served.aliases),
        "Adapters": ", ".join(served.adapters),
        "Window": f"{served.window:,} tokens",
    }
    page = render_page(__package__, "start", title=served.name, document=True, facts=facts, places=PLACES)
    return HTMLResponse(page, headers=HEADERS)
