"""The connections to other machines that a process has opened: counted, with host and purpose."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pophood.hub.net import MOST_TOLD, Outside, connect
from pophood.hub.net.connect import Reach
from pophood.hub.net.web import Web
from pophood.hub.pip_run import run_pip
from tests.hub.fake_hub import FakeHub


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outside, "opened", 0)
    monkeypatch.setattr(Outside, "_told", {})


def test_connections_to_other_machines_are_told_with_their_purpose(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = Web(hub.endpoint)
    with web.get("/a"):
        pass
    assert (Outside.opened, Outside.told()) == (0, [])  # this machine
    monkeypatch.setattr(connect, "reach_of", lambda address: Reach.PRIVATE)
    before = time.time()
    with Outside.opening_for("pull", "gpt2"), Outside.opening_for("first use", "other"):
        for _ in range(2):
            with web.get("/a"):
                pass
        run_pip(["--version"], Path())
    monkeypatch.setenv("http_proxy", hub.endpoint)
    monkeypatch.setenv("no_proxy", "")
    with Web("http://hub.example").get("/a"):
        pass
    proxied, pip, direct = Outside.told()
    assert Outside.opened == 4
    assert before <= direct.pop("first") <= direct.pop("last") <= pip["first"] == pip["last"] <= time.time()
    assert direct == {"host": "127.0.0.1", "by": "pophood", "reason": "pull", "model": "gpt2", "count": 2}
    assert (pip["host"], pip["by"], pip["reason"]) == (None, "pip", "pull")
    assert (proxied["host"], proxied["reason"], proxied["model"]) == ("hub.example", None, None)


def test_few_kinds_of_connections_are_remembered() -> None:
    for number in range(MOST_TOLD + 5):
        Outside.count(f"host-{number}")
    assert Outside.opened == MOST_TOLD + 5
    assert [one["host"] for one in Outside.told()] == [f"host-{n}" for n in range(MOST_TOLD + 4, 4, -1)]
