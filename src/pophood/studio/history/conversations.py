"""History: conversations and their nodes, as records that the routes send.

A node is one turn: what a person wrote, or what the model answered with its tokens. Writing a node again
under the same id replaces it, so that a page may repeat a request that it had no answer to. Errors are those
of the API, since nothing but a client's request can cause one.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pophood.errors import quoted
from pophood.openai.errors import MISSING, ApiError, invalid
from pophood.studio.history.database import Database

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as in ULIDs
TITLE = 60  # characters that a title takes of the first question
CHANGEABLE = ("title", "model", "adapter", "mode", "system", "template_args", "settings", "current")
JSON_COLUMNS = ("template_args", "settings", "prompt")
LISTED = "id, title, model, adapter, mode, created, updated"


def new_id() -> str:
    """Return a ULID: 48 bits of time and 80 of chance in base 32, so that ids sort by their time."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


class History:
    """The conversations in one file. For one thread at a time; raises ApiError."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises BadFile, PophoodError."""
        self._database = Database(path)

    def close(self) -> None:
        self._database.close()

    # ---- conversations ----

    def listed(self, search: str = "", *, deleted: bool = False) -> list[dict[str, Any]]:
        """Return the conversations that hold some words in a title or a turn, the newest first."""
        return self._database.rows(
            f"""
            SELECT {LISTED}, (
                SELECT coalesce(sum(count), 0) FROM pieces JOIN nodes ON nodes.id = pieces.node
                WHERE nodes.conversation = conversations.id AND nodes.deleted IS NULL
            ) AS tokens
            FROM conversations
            WHERE (deleted IS NOT NULL) = :deleted AND (:search = '' OR holds(title, :search) OR EXISTS (
                SELECT 1 FROM nodes WHERE conversation = conversations.id AND nodes.deleted IS NULL
                AND holds(text, :search)
            ))
            ORDER BY updated DESC, id DESC
            """,
            search=search,
            deleted=deleted,
        )

    def create(self, values: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Make a conversation, perhaps with nodes; one that is there under its id is left as it is."""
        key, now = values.get("id") or new_id(), time.time()
        filled = {name: values.get(name) for name in CHANGEABLE}
        filled |= {"title": values.get("title") or "", "mode": values.get("mode") or "chat"}
        with self._database.changing():
            self._database.do(
                f"""
                INSERT INTO conversations (id, {", ".join(CHANGEABLE)}, created, updated)
                VALUES (:id, {", ".join(":" + name for name in CHANGEABLE)}, :now, :now)
                ON CONFLICT (id) DO NOTHING
                """,
                id=key,
                now=now,
                **_packed(filled),
            )
            for node in nodes:
                self._write(key, node, now)
        return self.conversation(key)

    def conversation(self, key: str, *, deleted_nodes: bool = False) -> dict[str, Any]:
        """Return a conversation with its nodes in the order of their creation, and their tokens."""
        found = _unpacked(self._known(key))
        nodes = self._database.rows(
            "SELECT * FROM nodes WHERE conversation = :key AND (:all OR deleted IS NULL) ORDER BY number",
            key=key,
            all=deleted_nodes,
        )
        tokens: dict[str, list[Any]] = {}
        for piece in self._database.rows(
            """
            SELECT node, tokens FROM pieces JOIN nodes ON nodes.id = pieces.node
            WHERE conversation = :key ORDER BY node, first
            """,
            key=key,
        ):
            tokens.setdefault(piece["node"], []).extend(json.loads(piece["tokens"]))
        found["nodes"] = [_shown(node, tokens.get(node["id"], [])) for node in nodes]
        return found

    def change(self, key: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of a conversation."""
        self._known(key)
        chosen = {name: values[name] for name in CHANGEABLE if name in values}
        for name in ("title", "mode"):
            if name in chosen and chosen[name] is None:
                raise invalid(f"`{name}` cannot be null", name)
        with self._database.changing():
            for name, value in _packed(chosen).items():
                self._database.do(f"UPDATE conversations SET {name} = :v WHERE id = :key", v=value, key=key)
            self._touch(key, time.time())
        return self.conversation(key)

    def delete(self, key: str, *, forever: bool = False) -> None:
        """Delete a conversation; `restore` brings it back unless it is `forever`."""
        self._known(key)
        with self._database.changing():
            if forever:
                self._database.do("DELETE FROM conversations WHERE id = :key", key=key)
            else:
                self._database.do(
                    "UPDATE conversations SET deleted = :now WHERE id = :key", now=time.time(), key=key
                )

    def restore(self, key: str) -> dict[str, Any]:
        """Bring a deleted conversation back."""
        self._known(key)
        with self._database.changing():
            self._database.do("UPDATE conversations SET deleted = NULL WHERE id = :key", key=key)
        return self.conversation(key)

    # ---- nodes ----

    def write(self, key: str, node: Mapping[str, Any]) -> str:
        """Write a node, or write it again, and return its id; it is on the disk then.

        With `after` the first so many tokens stay as they are, and `tokens` come behind them.
        """
        self._known(key)
        with self._database.changing():
            return self._write(key, node, time.time())

    def change_node(self, key: str, node: str, values: Mapping[str, Any]) -> None:
        """Change the name or the text of a node."""
        self._node(key, node)
        with self._database.changing():
            for name in ("name", "text"):
                if name in values:
                    self._database.do(f"UPDATE nodes SET {name} = :v WHERE id = :id", v=values[name], id=node)
            self._touch(key, time.time())

    def delete_node(self, key: str, node: str) -> None:
        """Delete a node with all that hangs on it."""
        self._node(key, node)
        with self._database.changing():
            self._mark_below(node, None, time.time())
            self._touch(key, time.time())

    def restore_node(self, key: str, node: str) -> None:
        """Bring back a deleted node, and what was deleted together with it."""
        deleted = self._node(key, node)["deleted"]
        if deleted is None:
            return
        with self._database.changing():
            self._mark_below(node, deleted, None)
            self._touch(key, time.time())

    def _mark_below(self, node: str, before: float | None, after: float | None) -> None:
        self._database.do(
            """
            WITH RECURSIVE below (id) AS (
                SELECT :node UNION SELECT nodes.id FROM nodes JOIN below ON nodes.parent = below.id
            )
            UPDATE nodes SET deleted = :after WHERE id IN below AND deleted IS :before
            """,
            node=node,
            before=before,
            after=after,
        )

    def _write(self, key: str, node: Mapping[str, Any], now: float) -> str:
        number, parent = node.get("id") or new_id(), node.get("parent")
        if parent is not None:
            self._node(key, parent, "parent")
        owner = self._database.row("SELECT conversation FROM nodes WHERE id = :id", id=number)
        if owner is not None and owner["conversation"] != key:
            raise ApiError(409, f"the node {quoted(number)} is in another conversation", param="id")
        written = {name: node.get(name) for name in ("role", "text", "name", "seed", "finish", "model")}
        written |= {"settings": node.get("settings") or {}, "prompt": node.get("prompt")}
        written |= {"given": node.get("given") or 0}
        self._database.do(
            f"""
            INSERT INTO nodes (id, conversation, parent, {", ".join(written)}, created, updated)
            VALUES (:id, :key, :parent, {", ".join(":" + name for name in written)}, :now, :now)
            ON CONFLICT (id) DO UPDATE SET {", ".join(f"{n} = excluded.{n}" for n in written if n != "name")},
                name = coalesce(excluded.name, name), updated = excluded.updated
            """,
            id=number,
            key=key,
            parent=parent,
            now=now,
            **_packed(written),
        )
        self._write_tokens(number, node.get("after") or 0, node.get("tokens") or [])
        if node["role"] in ("user", "text"):
            title = " ".join(node["text"].split())[:TITLE]
            self._database.do(
                "UPDATE conversations SET title = :title WHERE id = :key AND title = ''", title=title, key=key
            )
        self._touch(key, now)
        return number

    def _write_tokens(self, node: str, after: int, tokens: Sequence[Any]) -> None:
        """Keep the first `after` tokens of a node, and put others behind them."""
        held = self._database.rows(
            "SELECT first, count, tokens FROM pieces WHERE node = :node ORDER BY first", node=node
        )
        there = sum(piece["count"] for piece in held)
        if after > there:
            raise ApiError(
                409, f"`after` is {after}, and {there} tokens are there: send the others first", param="after"
            )
        for piece in held:
            if (left := after - piece["first"]) < piece["count"]:
                self._database.do(
                    "DELETE FROM pieces WHERE node = :node AND first = :first",
                    node=node,
                    first=piece["first"],
                )
                if left > 0:
                    self._put(node, piece["first"], json.loads(piece["tokens"])[:left])
        if tokens:
            self._put(node, after, tokens)

    def _put(self, node: str, first: int, tokens: Sequence[Any]) -> None:
        self._database.do(
            "INSERT INTO pieces (node, first, count, tokens) VALUES (:node, :first, :count, :tokens)",
            node=node,
            first=first,
            count=len(tokens),
            tokens=_compact(tokens),
        )

    # ---- looking up ----

    def _known(self, key: str) -> dict[str, Any]:
        found = self._database.row("SELECT * FROM conversations WHERE id = :key", key=key)
        if found is None:
            raise ApiError(404, f"there is no conversation {quoted(key)}", MISSING)
        return found

    def _node(self, key: str, node: str, param: str | None = None) -> dict[str, Any]:
        found = self._database.row(
            "SELECT * FROM nodes WHERE id = :node AND conversation = :key", node=node, key=key
        )
        if found is None:
            status = 404 if param is None else 400
            message = f"there is no node {quoted(node)} in this conversation"
            raise ApiError(status, message, MISSING, param)
        return found

    def _touch(self, key: str, now: float) -> None:
        self._database.do("UPDATE conversations SET updated = :now WHERE id = :key", now=now, key=key)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _packed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of columns: JSON as text, and numbers that are too large for a column."""
    packed = dict(values)
    if packed.get("seed") is not None:
        packed["seed"] = str(packed["seed"])  # up to 64 bits without a sign, which no column holds
    for name in JSON_COLUMNS:
        if name in packed and (packed[name] is not None or name != "prompt"):
            packed[name] = _compact(packed[name] or ([] if name == "prompt" else {}))
    return packed


def _unpacked(row: dict[str, Any]) -> dict[str, Any]:
    parsed = (*JSON_COLUMNS, "seed")
    return {
        name: json.loads(value) if name in parsed and value is not None else value
        for name, value in row.items()
    }


def _shown(row: dict[str, Any], tokens: list[Any]) -> dict[str, Any]:
    """Return a node as the routes send it."""
    hidden = ("number", "conversation")
    return {name: value for name, value in _unpacked(row).items() if name not in hidden} | {"tokens": tokens}
