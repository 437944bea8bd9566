"""The page and its link: once for each start, a cookie that outlives the server, headers, and who may ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from pophood.errors import BadFile
from pophood.serve.guard.keys import LONGEST_VISIT, Sessions
from pophood.studio.secret import studio_secret
from tests.needs import linux
from tests.serve.wire import request
from tests.studio.server import StudioCommand, studio


def test_the_link_leads_to_the_page_once(running: StudioCommand) -> None:
    link = running.facts["link"].removeprefix(running.facts["url"])
    assert request(running.port, link, key=None).status == 401
    again = running.ask(f"/studio/../enter?{link.partition('?')[2]}".replace("/studio/..", "/studio"))
    assert again.status == 404
    inside = request(running.port, link, key=None, headers={"cookie": running.cookie})
    assert (inside.status, inside.headers["location"]) == (303, "/studio/")
    assert "set-cookie" not in inside.headers


def test_the_page_and_its_headers(running: StudioCommand) -> None:
    page = running.ask("/studio/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "require-trusted-types-for 'script'; trusted-types svelte-trusted-html dompurify" in policy
    assert "unsafe" not in policy
    script = running.ask("/studio/assets/index-BxY3k9Qz.js")
    assert (script.status, script.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["x-content-type-options"] == "nosniff"
    assert running.ask("/studio/assets/plain.css").headers["cache-control"] == "no-store"
    assert running.ask("/studio").headers["location"] == "/studio/"


@pytest.mark.parametrize("name", ["missing.js", "../index.html", "..%2f..%2fsecret", "%2e%2e/index.html", ""])
def test_no_other_file_is_served(running: StudioCommand, name: str) -> None:
    assert running.ask(f"/studio/assets/{name}").status == 404


def test_a_cookie_outlives_the_server(tiny_model: Path, tmp_path: Path) -> None:
    with studio(tiny_model, home=tmp_path) as first:
        made = first.post("/conversations", {"title": "kept"})
        port, cookie = first.port, first.cookie
        assert first.ask("/studio/").status == 200
    with studio(tiny_model, home=tmp_path, port=port) as second:
        if second.port == port:
            second.cookie = cookie
        assert second.ask("/studio/").status == 200
        assert second.get(f"/conversations/{made['id']}")["title"] == "kept"


def test_cookies_end_with_their_time_and_with_another_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(b"secret")
    value = sessions.enter(sessions.link_token or "")
    assert value is not None
    assert Sessions(b"secret").holds(value)
    assert not Sessions(b"another").holds(value)
    until, rest = value.split(".", 1)
    assert not sessions.holds(f"{int(until) + 1}.{rest}")
    for wrong in ("", ".", "..", value + "0", "x." + rest, value.rpartition(".")[0]):
        assert not sessions.holds(wrong)
    monkeypatch.setattr("pophood.serve.guard.keys.time.time", lambda: int(until) + 0.0)
    assert not sessions.holds(value)
    monkeypatch.setattr("pophood.serve.guard.keys.time.time", lambda: int(until) - LONGEST_VISIT + 1.0)
    assert sessions.holds(value)


def test_the_secret_is_kept_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    linux()
    secret = studio_secret(tmp_path / "studio")
    assert len(secret) == 32
    assert studio_secret(tmp_path / "studio") == secret
    path = tmp_path / "studio" / "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o640)
    with pytest.raises(BadFile, match="others can read"):
        studio_secret(tmp_path / "studio")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(BadFile, match="got 5 bytes"):
        studio_secret(tmp_path / "studio")


def test_a_link_on_a_page_of_another_site_leads_in_by_a_page(tiny_model: Path, tmp_path: Path) -> None:
    """A browser sends no strict cookie along a redirect that another site, or a file, began."""
    with studio(tiny_model, home=tmp_path, enters=False) as running:
        link = running.facts["link"].removeprefix(running.facts["url"])
        answer = request(running.port, link, key=None, headers={"sec-fetch-site": "cross-site"})
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html")
        assert b"url=/studio/" in answer.body
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={LONGEST_VISIT}"]
        running.cookie = cookie
        assert running.ask("/studio/").status == 200
