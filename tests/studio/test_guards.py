"""The rules of the server on every route of the studio, whichever there are: asked of the app itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pophood.serve.catalog import OneModel
from pophood.serve.client import EngineClient
from pophood.serve.guard.limits import BYTES_TYPE
from pophood.serve.process.records import LoadOrder
from pophood.studio.routes.build import Studio
from tests.serve.wire import KEY, LOCAL, request
from tests.studio.server import StudioCommand


def every_route(folder: Path) -> list[tuple[str, str]]:
    """Return the methods and paths of all routes, parameters filled in."""
    client = EngineClient(lambda _: None)
    made = Studio(folder, OneModel(None, client), order=LoadOrder("tiny", folder), say=print)  # type: ignore[arg-type]
    try:
        return [(method, re.sub(r"\{[^}]*\}", "x", path)) for method, path in made.routes]
    finally:
        made.close()


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Return every route; there are more than these tests know of."""
    found = every_route(tmp_path_factory.mktemp("routes"))
    assert len(found) >= 14
    assert all(path.startswith("/studio") for _, path in found)
    return found


def body_of(method: str) -> bytes | None:
    return b"{}" if method in ("POST", "PATCH", "PUT") else None


def test_another_host_is_refused(running: StudioCommand, routes: list[tuple[str, str]]) -> None:
    for method, path in routes:
        for host in ("evil.example", f"evil.example:{running.port}", "127.0.0.1.evil.example"):
            answer = running.ask(path, body_of(method), method=method, headers={"host": host})
            assert (answer.status, answer.code) == (403, "host_not_allowed"), (method, path)


def test_another_origin_is_refused(running: StudioCommand, routes: list[tuple[str, str]]) -> None:
    for method, path in routes:
        for origin in ("http://evil.example", "null", f"http://{LOCAL}:{running.port + 1}"):
            answer = running.ask(path, body_of(method), method=method, headers={"origin": origin})
            assert (answer.status, answer.code) == (403, "origin_not_allowed"), (method, path)


def test_a_request_without_cookie_and_key_is_refused(
    running: StudioCommand, routes: list[tuple[str, str]]
) -> None:
    for method, path in routes:
        for cookie in (None, f"pophood-{running.port}=x", running.cookie[:-1] + "~"):
            answer = running.ask(path, body_of(method), method=method, headers={"cookie": cookie})
            assert (answer.status, answer.code) == (401, "invalid_api_key"), (method, path)


def test_a_cookie_serves_no_page_of_another_site(
    running: StudioCommand, routes: list[tuple[str, str]]
) -> None:
    """Neither a link or a form there, nor a page on another port of this machine."""
    for method, path in routes:
        for site in ("cross-site", "same-site"):
            headers = {"sec-fetch-site": site, "origin": None}
            answer = running.ask(path, body_of(method), method=method, headers=headers)
            assert answer.status == 401, (method, path, site)


def test_what_changes_something_must_name_its_origin(
    running: StudioCommand, routes: list[tuple[str, str]]
) -> None:
    for method, path in routes:
        if method not in ("GET", "HEAD"):
            answer = running.ask(path, body_of(method), method=method, headers={"origin": None})
            assert answer.status == 401, (method, path)


def test_a_body_must_be_json(running: StudioCommand, routes: list[tuple[str, str]]) -> None:
    """Types that a form can send, which need no leave of the browser, are refused everywhere."""
    forms = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None)
    for method, path in routes:
        if method in ("POST", "PATCH", "PUT"):
            for kind in forms:
                answer = running.ask(path, b"{}", method=method, headers={"content-type": kind})
                assert (answer.status, answer.code) == (415, "not_json"), (method, path, kind)


def test_bytes_are_taken_for_uploads_alone(running: StudioCommand, routes: list[tuple[str, str]]) -> None:
    for method, path in routes:
        if method in ("POST", "PATCH") and not path.endswith("/files"):
            answer = running.ask(path, b"{}", method=method, headers={"content-type": BYTES_TYPE})
            assert answer.status == 415, (method, path)


def test_bodies_are_read_strictly(running: StudioCommand, routes: list[tuple[str, str]]) -> None:
    """No bug behind a body that is none: a 4xx in the shape of all errors, whatever comes."""
    bodies = (b"", b"[]", b"null", b'{"no_such_field": 1}', b"\xff", b'{"a": NaN}', b"[" * 1000)
    for method, path in routes:
        if method in ("POST", "PATCH"):
            for body in bodies:
                answer = running.ask(path, body, method=method)
                assert 400 <= answer.status < 500, (method, path, body, answer.body)
                assert answer.json["error"]["message"]


def test_other_methods_are_refused(running: StudioCommand, routes: list[tuple[str, str]]) -> None:
    for path in {path for _, path in routes}:
        assert running.ask(path, method="PUT").status == 405, path


def test_the_key_opens_the_api_to_programs(running: StudioCommand) -> None:
    answer = request(running.port, "/studio/api/state", key=running.key)
    assert answer.status == 200
    assert request(running.port, "/studio/api/state", key=KEY).status == 401
