"""Guards between a connection and a route: who may ask, how much may be sent, what is written down."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pophood.serve.guard.access import Access, AccessLog
from pophood.serve.guard.asgi import AsgiApp
from pophood.serve.guard.limits import BodyLimits, Limits
from pophood.serve.guard.security import Rules, Security


def guarded_app(
    app: AsgiApp,
    rules: Rules,
    *,
    limits: BodyLimits | None = None,
    uploads: Collection[str] = (),
    ended: Callable[[Access], object] = lambda _: None,
    broken: Callable[[str, Exception], object] = lambda *_: None,
) -> AsgiApp:
    """Return an app behind all guards: numbered and counted, then who may ask, then how much."""
    return AccessLog(Security(Limits(app, limits, uploads), rules), ended, broken)
