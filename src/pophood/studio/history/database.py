"""The database of conversations: one SQLite file, opened durably and brought to the newest form.

    conversations ─┬─ nodes: a tree of turns; a branch is a node with a sibling
                   └─ pieces: the tokens of a node, as they came

What was answered is on the disk: every change is one transaction with synchronous=FULL. Two programs may have
the file open at once. Deleted rows are kept for a while, so that deleting can be undone.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pophood.errors import BadFile, PophoodError
from pophood.system import disk_errors

BUSY_SECONDS = 10.0  # that another program may take for its change
KEPT_SECONDS = 30 * 86400  # that a deleted conversation can be restored

# Each is run once, in one transaction with the number of the form. Never edit one: add another.
MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        model TEXT,
        adapter TEXT,
        mode TEXT NOT NULL,
        system TEXT,
        template_args TEXT NOT NULL,
        settings TEXT NOT NULL,
        current TEXT,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        deleted REAL
    ) STRICT;
    CREATE TABLE nodes (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent TEXT REFERENCES nodes (id) ON DELETE CASCADE,
        role TEXT NOT NULL,
        text TEXT NOT NULL,
        name TEXT,
        settings TEXT NOT NULL,
        seed TEXT,
        finish TEXT,
        given INTEGER NOT NULL,
        prompt TEXT,
        model TEXT,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        deleted REAL
    ) STRICT;
    CREATE INDEX nodes_of ON nodes (conversation);
    CREATE INDEX children_of ON nodes (parent);
    CREATE TABLE pieces (
        node TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
        first INTEGER NOT NULL,
        count INTEGER NOT NULL,
        tokens TEXT NOT NULL,
        PRIMARY KEY (node, first)
    ) STRICT;
    """,
)


class Database:
    """An open file. For one thread, whichever it is."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it, readable by its owner alone. Raises BadFile, PophoodError."""
        self.path = path
        with disk_errors(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise BadFile(f"{path}: not a history that can be read ({error}): move it away") from error
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.create_function("holds", 2, _holds, deterministic=True)
        with self.changing():
            form = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if form > len(MIGRATIONS):
                raise BadFile(f"{self.path}: written by a newer pophood: update this one")
            for number, script in enumerate(MIGRATIONS[form:], form + 1):
                for statement in filter(str.strip, script.split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {number}")
            old = time.time() - KEPT_SECONDS
            self._connection.execute("DELETE FROM conversations WHERE deleted < ?", (old,))
            self._connection.execute("DELETE FROM nodes WHERE deleted < ?", (old,))

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One transaction: all of the block's changes are on the disk when it is left, or none is made."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise PophoodError(f"{self.path}: the history could not be written: {error}") from error

    def do(self, statement: str, **values: Any) -> int:
        """Run a statement, and return how many rows it changed."""
        return self._connection.execute(statement, values).rowcount

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query by the names of their columns."""
        return [dict(row) for row in self._connection.execute(query, values)]

    def row(self, query: str, **values: Any) -> dict[str, Any] | None:
        """Return the first row of a query, or None."""
        return next(iter(self.rows(query, **values)), None)

    def close(self) -> None:
        self._connection.close()


def _holds(text: str | None, words: str) -> bool:
    """Return whether a text has the words, whatever the case of any script."""
    return words.casefold() in (text or "").casefold()
