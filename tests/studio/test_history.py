"""Conversations and nodes through the routes: made, changed, searched, deleted and brought back."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile
from pophood.openai.errors import ApiError
from pophood.studio.history.conversations import History, new_id
from pophood.studio.history.database import MIGRATIONS, Database
from tests.studio.server import StudioCommand


def token(number: int) -> dict[str, Any]:
    """Return a token as a page sends it."""
    return {
        "id": number,
        "text": f" {number}",
        "logprob": -0.5,
        "entropy": 1.25,
        "top": [[number, "x", -0.5]],
    }


def test_a_conversation_is_made_and_read(running: StudioCommand) -> None:
    made = running.post("/conversations", {"mode": "chat", "system": "Be brief.", "settings": {"top_k": 40}})
    key = made["id"]
    assert made["nodes"] == []
    question = {"id": new_id(), "role": "user", "text": "What is  the capital\nof Japan?"}
    running.post(f"/conversations/{key}/nodes", question)
    answer = {
        "id": new_id(),
        "parent": question["id"],
        "role": "assistant",
        "text": " 1 2",
        "tokens": [token(1), token(2)],
        "seed": 2**64 - 1,
        "settings": {"temperature": 0.5},
        "finish": "stop",
        "model": "tiny",
        "prompt": [5, 6, 7],
        "given": 1,
    }
    for _ in range(2):  # repeating is harmless
        assert running.post(f"/conversations/{key}/nodes", answer) == {"id": answer["id"]}
    read = running.get(f"/conversations/{key}")
    assert read["title"] == "What is the capital of Japan?"
    assert (read["system"], read["settings"]) == ("Be brief.", {"top_k": 40})
    assert [node["id"] for node in read["nodes"]] == [question["id"], answer["id"]]
    kept = read["nodes"][1]
    assert {name: kept[name] for name in answer} == answer
    (listed,) = running.get("/conversations?search=JAPAN")["conversations"]
    assert (listed["id"], listed["tokens"]) == (key, 2)


def test_a_growing_answer_sends_what_is_new(running: StudioCommand) -> None:
    key = running.post("/conversations", {"title": "growing"})["id"]
    node = {"id": new_id(), "role": "assistant", "text": ""}
    path = f"/conversations/{key}/nodes"
    running.post(path, node | {"tokens": [token(0), token(1)]})
    running.post(path, node | {"after": 2, "tokens": [token(2)], "text": "abc"})
    running.post(path, node | {"after": 3, "tokens": [token(3), token(4)], "text": "abcde"})

    def ids() -> list[int]:
        return [one["id"] for one in running.get(f"/conversations/{key}")["nodes"][0]["tokens"]]

    assert ids() == [0, 1, 2, 3, 4]
    running.post(path, node | {"after": 3, "tokens": [token(3), token(4)]})  # again
    assert ids() == [0, 1, 2, 3, 4]
    running.post(path, node | {"after": 1, "tokens": [token(9)]})  # another way from there
    assert ids() == [0, 9]
    refused = running.post(path, node | {"after": 7, "tokens": [token(9)]}, status=409)
    assert "2 tokens are there" in refused["error"]["message"]
    running.post(path, node | {"tokens": []})
    assert ids() == []


def test_branches_are_named_deleted_and_brought_back(running: StudioCommand) -> None:
    key = running.post("/conversations", {"title": "tree"})["id"]
    nodes, parent = [new_id() for _ in range(4)], None
    for node in nodes[:3]:
        body = {"id": node, "parent": parent, "role": "user", "text": node}
        running.post(f"/conversations/{key}/nodes", body)
        parent = node
    running.post(
        f"/conversations/{key}/nodes", {"id": nodes[3], "parent": nodes[0], "role": "user", "text": "b"}
    )
    running.ask(f"/conversations/{key}/nodes/{nodes[1]}", {"name": "the long way"}, method="PATCH")

    def there() -> list[str]:
        return [node["id"] for node in running.get(f"/conversations/{key}")["nodes"]]

    assert running.get(f"/conversations/{key}")["nodes"][1]["name"] == "the long way"
    assert running.ask(f"/conversations/{key}/nodes/{nodes[2]}", method="DELETE").status == 200
    assert there() == [nodes[0], nodes[1], nodes[3]]
    assert running.ask(f"/conversations/{key}/nodes/{nodes[1]}", method="DELETE").status == 200
    assert there() == [nodes[0], nodes[3]]
    running.post(f"/conversations/{key}/nodes/{nodes[1]}/restore", {})
    assert there() == [nodes[0], nodes[1], nodes[3]], "what was deleted before stays deleted"
    running.post(f"/conversations/{key}/nodes/{nodes[2]}/restore", {})
    assert there() == nodes


def test_a_conversation_is_deleted_and_brought_back(running: StudioCommand) -> None:
    key = running.post("/conversations", {"title": "Straßenbahn"})["id"]
    assert running.ask(f"/conversations/{key}", method="DELETE").status == 200

    def found(query: str) -> bool:
        return key in [one["id"] for one in running.get(f"/conversations{query}")["conversations"]]

    assert not found("")
    assert found("?deleted=1&search=STRASSEN")
    running.post(f"/conversations/{key}/restore", {})
    assert found("?search=strasse")
    assert (
        running.ask(f"/conversations/{key}", {"title": "another"}, method="PATCH").json["title"] == "another"
    )
    assert running.ask(f"/conversations/{key}?forever=1", method="DELETE").status == 200
    assert not found("?deleted=1")
    assert running.ask(f"/conversations/{key}").status == 404


@pytest.mark.parametrize(
    ("node", "status", "says"),
    [
        ({"role": "user"}, 400, "text"),
        ({"role": "judge", "text": ""}, 400, "role"),
        ({"role": "user", "text": "", "parent": "01NOBODY"}, 400, "no node"),
        ({"role": "user", "text": "", "id": "a/b"}, 400, "id"),
        ({"role": "user", "text": "", "tokens": [{"id": -1, "text": ""}]}, 400, "tokens[0].id"),
        ({"role": "user", "text": "", "tokens": [{"id": 1, "text": "", "top": [[1]]}]}, 400, "top[0]"),
        ({"role": "user", "text": "", "seed": 2**64}, 400, "seed"),
    ],
)
def test_a_wrong_node_is_refused_by_name(
    running: StudioCommand, node: dict[str, Any], status: int, says: str
) -> None:
    key = running.post("/conversations", {"title": "wrong"})["id"]
    answer = running.ask(f"/conversations/{key}/nodes", node)
    assert answer.status == status
    assert says in answer.json["error"]["message"]
    assert running.get(f"/conversations/{key}")["nodes"] == []


def test_texts_come_back_as_they_were(running: StudioCommand) -> None:
    key = running.post("/conversations", {"title": "<img src=x onerror=alert(1)>"})["id"]
    text = "</script>\u2028\x00\x1b[2J 🙂 \ud83d ☃"
    running.post(f"/conversations/{key}/nodes", {"role": "user", "text": text})
    assert running.get(f"/conversations/{key}")["nodes"][0]["text"] == text.replace("\ud83d", "?")


# ---- the file ----


def test_ids_sort_by_their_time() -> None:
    ids = [new_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(len(one) == 26 for one in ids)
    assert sorted(one[:10] for one in ids) == [one[:10] for one in ids]


def test_the_file_is_its_owners_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "studio" / "history.sqlite3"
    database = Database(path)
    assert path.stat().st_mode & 0o077 == 0
    assert database.rows("PRAGMA synchronous") == [{"synchronous": 2}]
    assert database.rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    assert database.rows("PRAGMA user_version") == [{"user_version": len(MIGRATIONS)}]
    database.close()


def test_a_newer_file_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    newer, broken = tmp_path / "newer", tmp_path / "broken"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BadFile, match="newer pophood"):
        Database(newer)
    broken.write_bytes(b"no database" * 1000)
    with pytest.raises(BadFile, match="not a history"):
        Database(broken)


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    key = history.create({"title": "t"})["id"]
    node = {"id": "a", "role": "user", "text": "before", "tokens": [token(1)]}
    history.write(key, node)
    with pytest.raises(ApiError):
        history.write(key, node | {"text": "after", "after": 5})
    assert history.conversation(key)["nodes"][0]["text"] == "before"
    history.close()


def test_two_programs_write_to_one_file(tmp_path: Path) -> None:
    one, two = History(tmp_path / "history"), History(tmp_path / "history")
    first, second = one.create({"title": "one"})["id"], two.create({"title": "two"})["id"]
    one.write(second, {"role": "user", "text": "from one"})
    two.write(first, {"role": "user", "text": "from two"})
    assert [row["title"] for row in one.listed()] == [row["title"] for row in two.listed()] == ["one", "two"]
    one.close()
    two.close()


def test_what_was_deleted_long_ago_goes(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    key = history.create({"title": "old"})["id"]
    history.delete(key)
    history.close()
    database = Database(tmp_path / "history")
    with database.changing():
        database.do("UPDATE conversations SET deleted = 1")
    database.close()
    history = History(tmp_path / "history")
    assert history.listed(deleted=True) == []
    history.close()
