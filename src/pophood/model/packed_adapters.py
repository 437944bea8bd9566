"""PackedAdapters: adapters that requests choose by name and scale, packed while in use (small: one class).

A name can be given another adapter meanwhile. Requests that have begun keep the one that they began with,
which leaves memory with the last of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from pophood.adapters.adapter import Adapter
from pophood.errors import BadInput
from pophood.generate.prefix import PrefixCache
from pophood.model.engine import Engine
from pophood.model.identity import adapter_digest

PACKED = 16  # pairs of adapter and scale that stay packed while no request uses them
Pair = tuple[str, float]  # name and scale


class PackedAdapters:
    """Adapters in the engine, packed once for each pair of name and scale; the oldest unused ones go."""

    def __init__(self, engine: Engine, prefix: PrefixCache, adapters: Mapping[str, Adapter]) -> None:
        self._engine, self._prefix, self._adapters = engine, prefix, adapters
        self._packed: dict[Pair, int] = {}  # least recently used first
        self._digests: dict[str, str] = {}  # by name, once they were asked for
        self._known: dict[str, Adapter] = {}  # that are packed, by name; one that was replaced has another
        self._replaced = count()  # numbers for the names of those

    def numbers(self, pairs: Sequence[Pair]) -> tuple[int, ...]:
        """Return the engine's numbers of adapters. Raises BadInput for a name that is unknown."""
        found = []
        for name, scale in pairs:
            adapter = self._adapters.get(name)
            if adapter is None:
                there = ", ".join(self._adapters) or "none"
                raise BadInput(f"no adapter is called {name[:80]!r}; there is {there}")
            if self._known.get(name, adapter) is not adapter:
                self._rename(name)
            self._known[name] = adapter
            number = self._packed.pop((name, scale), None)
            if number is None:
                number = self._engine.add_adapter(adapter, scale)
            self._packed[name, scale] = number
            found.append(number)
        return tuple(found)

    def _rename(self, name: str) -> None:
        """Keep what was packed of a replaced adapter under a name that no request can give."""
        older = f"{name}\0{next(self._replaced)}"
        self._known[older] = self._known.pop(name)
        self._packed = {(older if n == name else n, scale): at for (n, scale), at in self._packed.items()}
        if name in self._digests:
            self._digests[older] = self._digests.pop(name)

    def identity(self, numbers: Sequence[int]) -> str:
        """Return a text that names the content and scales of packed adapters, in their order."""
        pairs = {number: pair for pair, number in self._packed.items()}
        for name in {pairs[number][0] for number in numbers} - self._digests.keys():
            self._digests[name] = adapter_digest(self._known[name])
        return " ".join(f"{self._digests[name]}:{scale!r}" for name, scale in map(pairs.__getitem__, numbers))

    def forget(self) -> None:
        """Unpack all of them, and forget what was computed with them."""
        while self._packed:
            number = self._packed.popitem()[1]
            self._prefix.forget_adapter(number)
            self._engine.remove_adapter(number)

    def forget_unused(self, used: set[int]) -> None:
        """Unpack adapters that are not `used`, with what was computed with them.

        They are those that were replaced, and the oldest others beyond PACKED.
        """
        for name, adapter in list(self._known.items()):
            if "\0" not in name and self._adapters.get(name) is not adapter:
                self._rename(name)
        unused = [pair for pair, number in self._packed.items() if number not in used]
        replaced = [pair for pair in unused if "\0" in pair[0]]
        others = [pair for pair in unused if "\0" not in pair[0]]
        for pair in replaced + others[: max(len(others) - PACKED, 0)]:
            number = self._packed.pop(pair)
            self._prefix.forget_adapter(number)
            self._engine.remove_adapter(number)
        packed = {name for name, _ in self._packed}
        for name in self._known.keys() - packed:
            del self._known[name]
            self._digests.pop(name, None)
