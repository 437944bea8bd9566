"""GET /studio/ and /studio/assets/...: the files of `make studio`, and the headers that confine them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pophood.openai.errors import MISSING, ApiError

DIST = Path(__file__).resolve().parents[1] / "dist"
HOW = "make studio"  # what builds them
# Scripts and styles of this server alone, and no markup but through the two sanitisers.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types svelte-trusted-html dompurify",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
FRESH = "no-store"
FOR_EVER = "public, max-age=31536000, immutable"
_HASHED = re.compile(r"[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+$")  # vite's names: index-BxY3k9Qz.js


def is_built() -> bool:
    """Return whether the page is there."""
    return (DIST / "index.html").is_file()


class Pages:
    """The files below a folder, read once and kept."""

    def __init__(self, dist: Path | None = None) -> None:
        dist = dist or DIST
        self._files: Mapping[str, Path] = {
            path.relative_to(dist).as_posix(): path
            for path in (dist.rglob("*") if dist.is_dir() else ())
            if path.is_file() and path.suffix in TYPES
        }
        self._content: dict[str, bytes] = {}

    async def page(self) -> Response:
        """Return the page."""
        return self._file("index.html", FRESH)

    async def bare(self) -> Response:
        """Lead from /studio to /studio/, below which the page's own addresses are."""
        return RedirectResponse("/studio/", 307)

    async def asset(self, request: Request) -> Response:
        """Return a file of the page, by a name that was found at the start. Raises ApiError, 404."""
        name = f"assets/{request.path_params['name']}"
        return self._file(name, FOR_EVER if _HASHED.search(name) else FRESH)

    def _file(self, name: str, caching: str) -> Response:
        path = self._files.get(name)
        if path is None:
            raise ApiError(404, f"the studio has no file {ascii(name[:200])[1:-1]}", MISSING)
        if name not in self._content:
            self._content[name] = path.read_bytes()
        headers = {**HEADERS, "cache-control": caching, "content-type": TYPES[path.suffix]}
        return Response(self._content[name], headers=headers)
