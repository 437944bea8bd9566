"""A simulated power cut: data that was not synced may be there, in part, or not at all.

Files and folders are numbered (inodes). Of a file that is synced its bytes are kept, of a folder that is
synced its entries; everything after that is pending, and a power cut lets any of it through.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.train.disk import Operation

Entry = tuple[str, int | None]  # a name, and its inode or None for "gone"


@dataclass
class _File:
    now: bytes = b""
    synced: bytes = b""


@dataclass
class _Folder:
    now: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    pending: list[list[Entry]] = field(default_factory=list)

    def change(self, *entries: Entry) -> None:
        """One operation; its entries change together."""
        self.pending.append(list(entries))
        _apply(self.now, list(entries))


def _apply(entries: dict[str, int], changes: list[Entry]) -> None:
    for name, inode in changes:
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode


class PowerDisk:
    """Follows operations below `root`, whose present contents count as synced."""

    def __init__(self, root: Path) -> None:
        self.root, self.nodes = root, dict[int, _File | _Folder]()
        self.top = self._take(root)

    def _take(self, path: Path) -> int:
        inode = len(self.nodes)
        self.nodes[inode] = _File()
        if path.is_dir():
            entries = {child.name: self._take(child) for child in sorted(path.iterdir())}
            self.nodes[inode] = _Folder(dict(entries), dict(entries))
        else:
            self.nodes[inode] = _File(path.read_bytes(), path.read_bytes())
        return inode

    def _new(self, node: _File | _Folder) -> int:
        self.nodes[len(self.nodes)] = node
        return len(self.nodes) - 1

    def _at(self, path: Path) -> _File | _Folder:
        node = self.nodes[self.top]
        for part in path.relative_to(self.root).parts:
            assert isinstance(node, _Folder)
            node = self.nodes[node.now[part]]
        return node

    def _folder(self, path: Path) -> _Folder:
        node = self._at(path)
        assert isinstance(node, _Folder)
        return node

    def __call__(self, operation: Operation) -> None:
        """Take an operation into account."""
        kind, path = operation.kind, operation.path
        if kind == "fsync":
            node = self._at(path)
            if isinstance(node, _File):
                node.synced = node.now
            else:
                node.synced, node.pending = dict(node.now), []
        elif kind == "write":
            node = self._at(path)
            assert isinstance(node, _File)
            node.now += operation.data
        elif kind == "truncate":
            node = self._at(path)
            assert isinstance(node, _File)
            node.now = node.now[: operation.size]
        elif kind == "rename":
            assert operation.to is not None
            folder = self._folder(path.parent)
            folder.change((path.name, None), (operation.to.name, folder.now[path.name]))
        elif kind in ("create", "mkdir"):
            inode = self._new(_File() if kind == "create" else _Folder())
            self._folder(path.parent).change((path.name, inode))
        else:
            self._folder(path.parent).change((path.name, None))

    def cut(self, target: Path, how: str, chance: random.Random) -> None:
        """Write the files after a power cut: "nothing" to "all" of the unsynced data survives."""
        self._write(self.top, target, how, chance)

    def _write(self, inode: int, target: Path, how: str, chance: random.Random) -> None:
        node = self.nodes[inode]
        if isinstance(node, _File):
            target.write_bytes(self._bytes(node, how, chance))
            return
        target.mkdir()
        entries = dict(node.synced)
        for changes in node.pending:
            if how in ("names", "all") or (how == "some" and chance.random() < 0.5):
                _apply(entries, changes)
        for name, child in entries.items():
            self._write(child, target / name, how, chance)

    def _bytes(self, node: _File, how: str, chance: random.Random) -> bytes:
        if how in ("data", "all"):
            return node.now
        if how == "some" and node.now != node.synced:
            size = len(node.now)
            cut = chance.randint(min(len(node.synced), size), size)
            ways = (node.now, node.synced, node.now[:cut], node.now[:cut] + bytes(size - cut))
            return chance.choice(ways)
        return node.synced
