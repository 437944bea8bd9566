"""Where the key comes from, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pophood.errors import BadFile, BadInput, NotFound, PophoodError
from pophood.serve.guard.keys import VARIABLE, Key, Sessions, check_open, choose_key

GOOD = "a-key-of-my-own-0123"


def key_file(folder: Path, text: str = GOOD, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_file_comes_before_the_environment_and_both_before_a_random_key(tmp_path: Path) -> None:
    path, environment = key_file(tmp_path, f"{GOOD}\n"), {VARIABLE: "from-the-environment"}
    assert choose_key(path, environment) == Key(GOOD, "file", path)
    assert choose_key(None, environment) == Key("from-the-environment", "environment")
    one, two = choose_key(None, {}), choose_key(None, {VARIABLE: ""})
    assert (one.origin, one.own, len(one.text)) == ("random", False, 48)
    assert one.text != two.text
    assert bytes.fromhex(one.text)


@pytest.mark.skipif(sys.platform == "win32", reason="another operating system: win32")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(BadFile, match="chmod 600"):
        choose_key(key_file(tmp_path, mode=mode), {})


@pytest.mark.parametrize(
    "text", ["", "\n", "two words", "tab\tkey", "k\xf6y", "a\nb", "x" * 513, "\x00" * 20]
)
def test_a_key_that_no_header_carries_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="cannot be sent in a header"):
        choose_key(key_file(tmp_path, text), {})
    if text:
        with pytest.raises(BadInput, match=VARIABLE):
            choose_key(None, {VARIABLE: text})


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such key file"):
        choose_key(tmp_path / "none", {})
    tmp_path.chmod(0o700)
    with pytest.raises(PophoodError):
        choose_key(tmp_path, {})


def test_no_message_holds_the_key(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        choose_key(None, {VARIABLE: "secret words"})
    assert "secret" not in str(caught.value)
    assert GOOD not in repr(Key(GOOD, "file", tmp_path))
    with pytest.raises(BadInput) as caught:
        check_open(Key("short-secret", "file"), "0.0.0.0")
    assert "short-secret" not in str(caught.value)


def test_other_machines_need_a_key_of_the_users_own() -> None:
    with pytest.raises(BadInput, match="--key-file"):
        check_open(choose_key(None, {}), "0.0.0.0")
    with pytest.raises(BadInput, match="at least 16"):
        check_open(Key("x" * 15, "environment"), "0.0.0.0")
    check_open(Key("x" * 16, "environment"), "0.0.0.0")


def test_only_the_key_matches() -> None:
    key = Key(GOOD, "file")
    assert key.matches(GOOD)
    for other in ("", GOOD[:-1], GOOD + "x", GOOD.upper(), "\udcff", "\xe9"):
        assert not key.matches(other)


def test_a_link_becomes_one_cookie() -> None:
    sessions = Sessions()
    token = sessions.link_token
    assert token is not None
    assert sessions.enter("wrong") is None
    value = sessions.enter(token)
    assert value is not None
    assert sessions.enter(token) is None
    assert sessions.holds(value)
    assert not sessions.holds(token)
    assert not Sessions().holds(value)
