"""Who may ask: Host, Origin, key, cookie and CORS, on real sockets before an app that notes its calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pophood.errors import BadInput
from pophood.serve.guard import guarded_app
from pophood.serve.guard.asgi import Receive, Scope, Send
from pophood.serve.guard.keys import Key, Sessions
from pophood.serve.guard.security import Rules, Security, rules_of
from tests.serve.hosts import GOOD_HOSTS, REFUSED_HOSTS
from tests.serve.wire import KEY, LOCAL, connect, echo, read_response, request, serving

OTHER = "http://pages.example"
NAMED = "http://localhost:3000"


@dataclass
class Guarded:
    """A server with its rules; `reached` are the paths that came through."""

    rules: Rules
    port: int = 0
    reached: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def server() -> Iterator[Guarded]:
    key = Key(KEY, "environment")
    guarded = Guarded(rules_of(key, ["my-laptop.local"], [NAMED]))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        guarded.reached.append(scope["path"])
        await echo(scope, receive, send)

    with serving(guarded_app(app, guarded.rules)) as guarded.port:
        yield guarded


@pytest.fixture(autouse=True)
def forget(server: Guarded) -> None:
    server.reached.clear()


# ---- Host ----


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/enter", "/no/such/route"])
@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_a_foreign_host_is_refused_before_any_handler(server: Guarded, host: str, path: str) -> None:
    response = request(server.port, path, headers={"host": host.replace("PORT", str(server.port))})
    assert (response.status, server.reached) == (403, [])


def test_there_are_enough_foreign_hosts() -> None:
    assert len(REFUSED_HOSTS) >= 40


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_this_machine_by_any_of_its_names(server: Guarded, host: str) -> None:
    assert request(server.port, headers={"host": host.replace("PORT", str(server.port))}).status == 200


@pytest.mark.parametrize(
    "first",
    [
        b"GET /health HTTP/1.1\r\n\r\n",  # none
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.com\r\n\r\n",
        b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\nHost: evil.com\r\n\r\n",
        b"GET http://evil.com/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
def test_a_host_that_is_missing_double_or_elsewhere(server: Guarded, first: bytes) -> None:
    with connect(server.port) as stream:
        stream.sendall(first)
        response = read_response(stream)
    assert (response.status, server.reached) == (403, [])
    assert "x-request-id" in response.headers


def test_the_address_of_the_connection_counts_only_where_others_may_come() -> None:
    open_rules = rules_of(Key(KEY, "file"), address="0.0.0.0")
    scope = {"server": ("192.168.1.5", 8321)}
    assert Security(echo, open_rules)._is_local(scope, "192.168.1.5")
    assert not Security(echo, open_rules)._is_local(scope, "192.168.1.6")
    assert not Security(echo, open_rules)._is_local(scope, "0.0.0.0")
    assert not Security(echo, rules_of(Key(KEY, "file")))._is_local(scope, "192.168.1.5")


# ---- key ----


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY}"},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"authorization": "Bearer wrong", "x-api-key": KEY},
    ],
)
def test_the_key_opens_every_route(server: Guarded, headers: dict[str, str]) -> None:
    assert request(server.port, "/v1/x", key=None, headers=headers).json["path"] == "/v1/x"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"x-api-key": "wrong"},
        {"api-key": "w\xf6rong"},
        {"cookie": f"pophood={KEY}"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/models", "/", "/metrics", "/health/", "//health", "/health%2f", "/docs"]
)
def test_without_the_key_every_route_but_health_is_closed(
    server: Guarded, headers: dict[str, str], path: str
) -> None:
    response = request(server.port, path, key=None, headers=headers)
    assert (response.status, response.code, server.reached) == (401, "invalid_api_key", [])
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-should-retry"] == "false"
    assert KEY not in response.body.decode()


def test_health_needs_no_key(server: Guarded) -> None:
    assert request(server.port, "/health", key=None).status == 200


def test_a_key_in_the_query_is_not_read(server: Guarded) -> None:
    assert request(server.port, f"/v1/models?api_key={KEY}&key={KEY}", key=None).status == 401


# ---- Origin and CORS ----


@pytest.mark.parametrize("origin", [OTHER, "null", "http://127.0.0.1:1", "http://localhost.evil.com", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
def test_a_page_of_another_origin_reaches_nothing(server: Guarded, origin: str, method: str) -> None:
    content = {"content-type": "text/plain", "content-length": "0", "origin": origin}
    for path in ("/v1/chat/completions", "/health"):
        response = request(server.port, path, key=None, method=method, headers=content)
        assert (response.status, response.code, server.reached) == (403, "origin_not_allowed", [])
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_program_with_the_key_may_name_any_origin_but_gets_no_cors(server: Guarded) -> None:
    response = request(server.port, headers={"origin": "vscode-file://vscode-app"})
    assert response.status == 200
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_the_servers_own_origin_needs_the_key_all_the_same(server: Guarded) -> None:
    own = {"origin": f"http://{LOCAL}:{server.port}"}
    assert request(server.port, headers=own).status == 200
    assert request(server.port, key=None, headers=own).status == 401


def test_a_named_origin_gets_cors_and_still_needs_the_key(server: Guarded) -> None:
    with_key = request(server.port, headers={"origin": NAMED})
    without = request(server.port, key=None, headers={"origin": NAMED})
    assert (with_key.status, without.status) == (200, 401)
    for response in (with_key, without):
        assert response.headers["access-control-allow-origin"] == NAMED
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in response.headers


def test_preflights(server: Guarded) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    asks |= {"access-control-request-private-network": "true"}
    allowed = request(server.port, key=None, method="OPTIONS", headers=asks | {"origin": NAMED})
    assert allowed.status == 204
    assert allowed.headers["access-control-allow-origin"] == NAMED
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert allowed.headers["access-control-allow-private-network"] == "true"
    refused = request(server.port, key=None, method="OPTIONS", headers=asks | {"origin": OTHER})
    assert (refused.status, server.reached) == (403, [])


@pytest.mark.parametrize("origin", ["*", "localhost:3000", "http://a/b", "http://a b", "http://u@a"])
def test_an_origin_that_cannot_be_one_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(BadInput, match="--allow-origin"):
        rules_of(Key(KEY, "file"), origins=[origin])


@pytest.mark.parametrize("host", ["*", "a:80", "http://a", "", "a/b", "a b"])
def test_a_name_that_cannot_be_a_host_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(BadInput, match="--allow-host"):
        rules_of(Key(KEY, "file"), hosts=[host])


# ---- the browser's link ----


@pytest.fixture
def cookie(server: Guarded) -> str:
    """Open the link as a browser does, and return the cookie as it sends it back."""
    object.__setattr__(server.rules, "sessions", Sessions())
    response = request(server.port, f"/enter?token={server.rules.sessions.link_token}", key=None)
    assert (response.status, response.headers["location"]) == (303, "/")
    value, *attributes = response.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    return value


def test_the_link_works_once(server: Guarded, cookie: str) -> None:
    assert request(server.port, "/enter?token=None", key=None).status == 401
    assert request(server.port, "/enter?token=", key=None).status == 401
    assert request(server.port, "/enter", key=None).status == 401
    assert request(server.port, key=None, headers={"cookie": cookie}).status == 200


def test_a_wrong_token_does_not_use_the_link_up(server: Guarded, cookie: str) -> None:
    object.__setattr__(server.rules, "sessions", fresh := Sessions())
    token = fresh.link_token
    assert request(server.port, "/enter?token=wrong", key=None).status == 401
    assert request(server.port, f"/enter?token={token}", key=None).status == 303
    assert request(server.port, f"/enter?token={token}", key=None).status == 401


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"sec-fetch-site": "none"}, 200),
        ("GET", {"sec-fetch-site": "same-origin"}, 200),
        ("GET", {"sec-fetch-site": "same-site"}, 401),  # a page on another port of this machine
        ("GET", {"sec-fetch-site": "cross-site"}, 401),
        ("POST", {"origin": "http://127.0.0.1:PORT"}, 200),
        ("POST", {}, 401),  # a browser names the origin of every POST
        ("POST", {"origin": OTHER}, 403),
        ("POST", {"origin": NAMED}, 401),  # never on cookies alone
        ("GET", {"origin": NAMED}, 401),
    ],
)
def test_the_cookie_serves_this_servers_pages_alone(
    server: Guarded, cookie: str, method: str, headers: dict[str, str], status: int
) -> None:
    fields = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
    body: dict[str, str] | None = {} if method == "POST" else None
    response = request(server.port, key=None, body=body, headers={"cookie": cookie, **fields})
    assert response.status == status


@pytest.mark.parametrize(
    "value", ["pophood-PORT=wrong", "pophood-PORT=", ";;;=", "pophood-1=VALUE", "a=\x7f"]
)
def test_other_cookies_open_nothing(server: Guarded, cookie: str, value: str) -> None:
    sent = value.replace("PORT", str(server.port)).replace("VALUE", cookie.partition("=")[2])
    assert request(server.port, key=None, headers={"cookie": sent}).status in (400, 401)


# ---- every response ----


def test_every_response_has_an_id(server: Guarded) -> None:
    seen = {request(server.port, key=key).headers["x-request-id"] for key in (KEY, None, KEY)}
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("own", "kept"), [("trace-1.2:3_4", True), ("a" * 65, False), ("a b", False), ("", False)]
)
def test_a_clients_own_id_is_kept_if_it_is_harmless(server: Guarded, own: str, kept: bool) -> None:
    response = request(server.port, headers={"x-request-id": own})
    assert (response.headers["x-request-id"] == own) is kept


# ---- a port without a key ----


@pytest.fixture(scope="module")
def keyless() -> Iterator[int]:
    with serving(guarded_app(echo, Rules(Key(KEY, "file"), keyless=True))) as port:
        yield port


def test_a_port_without_a_key_answers_programs_and_no_pages_of_others(keyless: int) -> None:
    assert request(keyless, "/api/tags", key=None).status == 200
    for headers, status in (
        ({"host": "pages.example"}, 403),
        ({"origin": OTHER}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 401),
        ({"sec-fetch-site": "same-site"}, 401),
        ({"sec-fetch-site": "none"}, 200),
    ):
        assert request(keyless, "/api/tags", key=None, headers=headers).status == status
    form = {"content-type": "text/plain"}
    assert request(keyless, "/api/chat", key=None, body={}, headers=form).status == 415
