"""Who may ask: the rules for Host, Origin and key that every request meets before any route. Pure ASGI.

They are Jupyter Server's (`check_host`, `check_origin`), which a web page on another site cannot satisfy:

    Host      a loopback address, localhost, or a name from --allow-host, so that no name that a page's owner
              lets point to 127.0.0.1 (DNS rebinding) reaches a route                              else 403
    Origin    equal to Host, unless the request carries the key, or --allow-origin names it        else 403
    key       on every route but /health: Bearer, x-api-key or api-key; or the cookie of a browser
              that opened the link, never for another origin                                       else 401
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from pophood.errors import BadInput
from pophood.serve.guard.asgi import (
    AsgiApp,
    AsgiMessage,
    Headers,
    Receive,
    Scope,
    Send,
    encoded,
    header,
    refuse,
)
from pophood.serve.guard.keys import LONGEST_VISIT, Key, Sessions

OPEN_ROUTES = frozenset({"/health"})  # without a key
ENTRY = "/enter"  # where the browser's link leads
LOCAL_NAME = "localhost"
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\[\]:@/?#\s\\]+)(:(?P<port>\d{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@\s]+)|[a-z][a-z0-9+.-]*://[^/?#@\s]*")


@dataclass(frozen=True)
class Rules:
    """The `hosts` and `origins` that a server allows beside its own, in lower case (`rules_of`).

    `address` is the address that the server listens at, if it is not a loopback one. With `keyless` no key
    is asked of programs of this machine; Host and Origin are looked at all the same. A browser's link leads
    to `place`.
    """

    key: Key
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    address: str | None = None
    sessions: Sessions = field(default_factory=Sessions)
    keyless: bool = False
    place: str = "/"


def rules_of(
    key: Key, hosts: Sequence[str] = (), origins: Sequence[str] = (), address: str | None = None
) -> Rules:
    """Check what the user allows. Raises BadInput for a host with a port, or an origin with a path."""
    names = []
    for host in hosts:
        if not _NAME.fullmatch(host.lower()):
            raise BadInput(
                f"--allow-host {host!r}: wanted a bare name such as my-laptop.local, without a port"
            )
        names.append(host.lower())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin.lower()):
            raise BadInput(
                f"--allow-origin {origin!r}: wanted one such as http://localhost:3000, without a path"
            )
    return Rules(key, frozenset(names), frozenset(map(str.lower, origins)), address)


class Security:
    """The middleware: it answers what it refuses, and passes the rest to `app`."""

    def __init__(self, app: AsgiApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        host = header(scope, b"host")
        fault = self._host_fault(scope, host)
        if fault is not None:
            await refuse(send, 403, fault, "host_not_allowed")
            return
        origin, named = header(scope, b"origin"), self._names_key(scope)
        allowed = origin is not None and origin.lower() in self._rules.origins
        own = origin is None or _same(origin, host)
        if not (own or allowed or named):
            name = _shown(origin)
            message = f"the origin {name} is not this server's: start it with --allow-origin {name}"
            await refuse(send, 403, message, "origin_not_allowed")
            return
        if allowed and origin is not None:
            send = _with_headers(send, _cors(origin))
            if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method"):
                await _preflight(scope, send)
                return
        await self._authorised(scope, receive, send, named=named, own=own)

    async def _authorised(
        self, scope: Scope, receive: Receive, send: Send, *, named: bool, own: bool
    ) -> None:
        path = scope["path"]
        if path == ENTRY and scope["method"] == "GET":
            await self._enter(scope, send)
        elif named or path in OPEN_ROUTES or (own and (self._is_free(scope) or self._has_cookie(scope))):
            await self._app(scope, receive, send)
        else:
            tried = any(header(scope, name) for name in (b"authorization", b"x-api-key", b"api-key"))
            message = "the key is wrong" if tried else "a key is needed"
            await refuse(
                send,
                401,
                f"{message}: send the one that `pophood serve` printed, as `Authorization: Bearer KEY`",
                "invalid_api_key",
                {"www-authenticate": "Bearer"},
            )

    # ---- Host ----

    def _host_fault(self, scope: Scope, host: str | None) -> str | None:
        """Return what is wrong with the Host header or the target; None if they are allowed."""
        raw = scope.get("raw_path") or scope["path"].encode()
        if not raw.startswith(b"/"):
            return "the target of the request names a host: send a path"
        if host is None or sum(name == b"host" for name, _ in scope["headers"]) != 1:
            return "the request needs exactly one Host header"
        found = _HOST.fullmatch(host.lower())
        if found is None:
            return f"the Host {_shown(host)} is not a name or an address"
        if not self._is_local(scope, found["name"]):
            name = _shown(found["name"])
            return f"the Host {name} is not this machine: start the server with --allow-host {name}"
        return None

    def _is_local(self, scope: Scope, name: str) -> bool:
        if name == LOCAL_NAME or name in self._rules.hosts:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        if address.is_loopback:
            return True
        # Where other machines may come in: the address that this connection came to, which no page forges.
        server = scope.get("server")
        return self._rules.address is not None and server is not None and str(address) == server[0]

    # ---- key and cookie ----

    def _names_key(self, scope: Scope) -> bool:
        """Return whether one of the headers carries the key. Every one is looked at: Continue sends three."""
        found = False
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, text = value.decode("latin-1").partition(" ")
                if scheme.lower() == "bearer":
                    found |= self._rules.key.matches(text.strip())
            elif name in (b"x-api-key", b"api-key"):
                found |= self._rules.key.matches(value.decode("latin-1").strip())
        return found

    def _is_free(self, scope: Scope) -> bool:
        """Return whether no key is asked: at a port without one, of all but pages of other sites."""
        return self._rules.keyless and header(scope, b"sec-fetch-site") in (None, "same-origin", "none")

    def _has_cookie(self, scope: Scope) -> bool:
        """Return whether the request comes from a page of this server that opened the link.

        A page on another port of this machine counts as the same site, and its requests carry the cookie: the
        browser's own headers tell them apart. What changes something must name its origin.
        """
        if header(scope, b"sec-fetch-site") not in (None, "same-origin", "none"):
            return False
        if scope["method"] not in ("GET", "HEAD") and header(scope, b"origin") is None:
            return False
        try:
            cookies = SimpleCookie(header(scope, b"cookie") or "")
        except CookieError:
            return False
        cookie = cookies.get(cookie_name(scope))
        return cookie is not None and self._rules.sessions.holds(cookie.value)

    async def _enter(self, scope: Scope, send: Send) -> None:
        """Turn the token of the link into a cookie, and lead on to a place without it."""
        tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        value = self._rules.sessions.enter(tokens[0])
        fields = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
        if value is not None:
            cookie = f"{cookie_name(scope)}={value}; Path=/; HttpOnly; SameSite=Strict"
            kept = self._rules.sessions.kept
            fields["set-cookie"] = f"{cookie}; Max-Age={LONGEST_VISIT}" if kept else cookie
        elif not self._has_cookie(scope):  # a browser that is in already may open its link again
            message = "this link was used already, or is wrong: start the server again for a new one"
            await refuse(send, 401, message, "invalid_link")
            return
        place, status, body = self._rules.place, 303, b""
        if header(scope, b"sec-fetch-site") in (None, "none", "same-origin"):
            fields["location"] = place
        else:
            # A link in a file or on a page of another site: a browser would send no strict cookie along a
            # redirect from there, but it does from a page of this server.
            status, body = 200, f'<meta http-equiv="refresh" content="0; url={place}">'.encode()
            fields |= {"content-type": "text/html", "content-security-policy": "default-src 'none'"}
        fields["content-length"] = str(len(body))
        await send({"type": "http.response.start", "status": status, "headers": encoded(fields.items())})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def cookie_name(scope: Scope) -> str:
    """Return the cookie's name, which has the port: all ports of a host share its cookies (RFC 6265, 8.5)."""
    server = scope.get("server")
    return f"pophood-{server[1] if server else 0}"


def _same(origin: str, host: str | None) -> bool:
    found = _ORIGIN.fullmatch(origin.lower())
    return found is not None and host is not None and found["host"] == host.lower()


def _shown(text: str | None) -> str:
    """Return text from a request as a message can show it: printable ASCII, not too long."""
    return ascii((text or "")[:80])[1:-1]


# ---- CORS ----


def _cors(origin: str) -> Headers:
    return encoded([("access-control-allow-origin", origin), ("vary", "Origin")])


def _with_headers(send: Send, more: Headers) -> Send:
    async def wrapped(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return wrapped


async def _preflight(scope: Scope, send: Send) -> None:
    fields = {
        "access-control-allow-methods": "GET, POST, OPTIONS",
        "access-control-allow-headers": "authorization, x-api-key, api-key, content-type",
        "access-control-max-age": "600",
        "content-length": "0",
    }
    if header(scope, b"access-control-request-private-network") == "true":
        fields["access-control-allow-private-network"] = "true"
    await send({"type": "http.response.start", "status": 204, "headers": encoded(fields.items())})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
