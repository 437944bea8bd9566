"""The saved login is sent to huggingface.co's own origin only; for other hubs it is not even read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import NotFound
from pophood.hub.net import web
from pophood.hub.net.web import Login, login_for, token_path
from tests import processes
from tests.hub.fake_hub import FakeHub, gpt2_files, running_hub

HF = "https://huggingface.co"


@pytest.fixture
def own(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Make the fake hub the one that the saved login belongs to, and add a repo."""
    monkeypatch.setattr(web, "HUB", hub.endpoint)
    monkeypatch.delenv("HF_ENDPOINT")
    for name in ("HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    hub.add("owner/name", gpt2_files())
    return hub


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Write the file that `hf auth login` leaves (HF_HOME is tmp_path/hf in these tests)."""
    path = tmp_path / "hf" / "token"
    path.parent.mkdir()
    path.write_text("hf_saved\n")
    return path


def logins(hub: FakeHub) -> dict[str, str | None]:
    return {path.partition("?")[0]: headers.get("authorization") for _, path, headers in hub.asked}


def test_the_saved_login_goes_to_the_hub_and_not_to_its_redirects(own: FakeHub, saved: Path) -> None:
    details: list[str] = []
    said: list[str] = []
    pophood_hub.pull("owner/name", announce=said.append, detail=details.append)
    sent = logins(own)
    assert sent.pop("/cdn/owner/name/model.safetensors") is None  # localhost, not 127.0.0.1
    assert set(sent.values()) == {"Bearer hf_saved"}
    assert details == [f"{own.endpoint}: using the login saved in {saved}"]
    assert not any("using" in line or "hf_saved" in line for line in said)


def test_another_server_never_sees_it(own: FakeHub, saved: Path) -> None:
    with running_hub() as other:
        other.add("owner/name", gpt2_files())
        own.wrong.location = f"{other.endpoint}/cdn/owner/name/model.safetensors"  # same host, another port
        pophood_hub.pull("owner/name", announce=str)
        assert logins(other) == {"/cdn/owner/name/model.safetensors": None}


@pytest.mark.parametrize("own_address", [HF, "http://127.0.0.1:1", "http://localhost", "https://127.0.0.1"])
def test_another_endpoint_never_sees_it(
    own_address: str, hub: FakeHub, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "HUB", own_address)  # HF_ENDPOINT is the fake hub's
    hub.add("owner/name", gpt2_files())
    saved.chmod(0o600)
    details: list[str] = []
    pophood_hub.pull("owner/name", announce=str, detail=details.append)
    assert set(logins(hub).values()) == {None} and details == []


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        (HF, True),
        (f"{HF}/prefix", True),
        (f"{HF}:443", True),
        ("http://huggingface.co", False),
        (f"{HF}:8443", False),
        ("https://huggingface.co.evil.example", False),
        ("https://hub.huggingface.co", False),
        ("https://hf-mirror.com", False),
    ],
)
def test_which_endpoints_are_the_hubs_own(endpoint: str, sent: bool, saved: Path) -> None:
    assert login_for(endpoint, HF) == (
        Login("hf_saved", f"the login saved in {saved}", True) if sent else None
    )


def test_a_variable_wins_over_the_file(own: FakeHub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_old")
    assert login_for(HF, HF) == Login("hf_old", "HUGGING_FACE_HUB_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert login_for(HF, HF) == Login("hf_mine", "HF_TOKEN")
    pophood_hub.pull("owner/name", announce=str)
    assert set(logins(own).values()) == {"Bearer hf_mine", None}


@pytest.mark.parametrize("switch", ["1", "true", "ON", "yes"])
def test_it_can_be_switched_off(
    switch: str, own: FakeHub, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", switch)
    pophood_hub.pull("owner/name", announce=str)
    assert set(logins(own).values()) == {None}


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 20_000, None])
def test_a_file_that_holds_no_login(content: bytes | None, own: FakeHub, saved: Path) -> None:
    saved.unlink()
    if content is None:
        saved.mkdir()
    else:
        saved.write_bytes(content)
    pophood_hub.pull("owner/name", announce=str)
    assert set(logins(own).values()) == {None}


def test_a_login_that_has_run_out_keeps_nobody_from_a_public_model(own: FakeHub, saved: Path) -> None:
    own.wrong.refused_token = "hf_saved"
    said: list[str] = []
    pophood_hub.pull("owner/name", announce=said.append)
    assert said[0] == (
        f"owner/name: the hub refused the login saved in {saved}; fetching without it "
        "(`hf auth login` creates a new one)"
    )
    assert list(logins(own).values()).count("Bearer hf_saved") <= 1


def test_a_token_that_was_set_is_never_left_out(
    own: FakeHub, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    own.wrong.refused_token = "hf_mine"
    with pytest.raises(
        NotFound, match=r"owner/name: no such model, or HF_TOKEN is not valid or may not read it"
    ):
        pophood_hub.pull("owner/name", announce=str)


def test_a_private_model(own: FakeHub, saved: Path) -> None:
    own.wrong.private = True
    assert pophood_hub.pull("owner/name", announce=str).revision == own.commit_of("owner/name")
    own.wrong.refused_token = "hf_saved"
    with pytest.raises(
        NotFound, match=r"no such model, or the login saved in .*token is not valid or may not"
    ):
        pophood_hub.pull("owner/name", announce=str, force=True)
    saved.unlink()
    with pytest.raises(NotFound, match=r"for a private one log in with `hf auth login`, or set HF_TOKEN"):
        pophood_hub.pull("owner/name", announce=str, force=True)


def test_no_message_and_no_repr_holds_the_token() -> None:
    assert "secret" not in repr(web.Web(HF, Login("secret", "HF_TOKEN")))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HF_HOME": "~/somewhere"},
        {"HF_HOME": "$HOME/else"},
        {"XDG_CACHE_HOME": "/x/cache"},
        {"HF_TOKEN_PATH": "~/my-token", "HF_HOME": "/y"},
    ],
)
def test_the_file_is_where_huggingface_hub_keeps_it(
    variables: dict[str, str], elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs Python package: huggingface_hub")
    code = "import json; from huggingface_hub import constants; print(json.dumps(constants.HF_TOKEN_PATH))"
    result = processes.run(
        [sys.executable, "-c", code],
        env=elsewhere | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("HF_HOME", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (elsewhere | variables).items():
        monkeypatch.setenv(name, value)
    assert str(token_path()) == json.loads(result.stdout)
