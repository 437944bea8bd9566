"""A seeded mutator of files, and a watch that checks whether a parser survives them.

Binary seeds are written through `Writer`, which remembers where the numbers and texts are, so that a mutation
can lie in a length rather than only flip bits; JSON seeds are trees. Mutation i of a run depends on (run, i)
only: a failure names both, and `mutation(seeds, run, i)` makes the same bytes again.

    for case in mutations(seeds, fuzz_count(), run="gguf"):
        watch.attempt(case, lambda: open_it(case.data))
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pophood.errors import PophoodError

# Values that a length, an offset or a type should not have, and values at its limits.
NUMBERS = (
    *range(18),
    *(2**n + d for n in (5, 7, 8, 15, 16, 24, 31, 32, 47, 62, 63, 64) for d in (-1, 0, 1)),
    100_000_000,
    100_000_001,
)
TEXTS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"../../../etc/passwd",
    b"\x1b[2J\n",
    b"A" * 300,
    "é😀".encode(),
)
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, 1e308, -0.0, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 10**9),
    *("", "x", "\x00", "\ud800", "é😀", "../x", "A" * 300, "1", "null", "F32", "__import__('os')"),
    *([], {}, [[]], [0], [None], {"": {}}, [0, 0], [0, 2**63], {"a": 1}, [-1, 4]),
)


def fuzz_count(default: int = 1_000) -> int:
    """Return the mutations per kind of file: POPHOOD_FUZZ, which `make test-full` sets to 5,000."""
    return int(os.environ.get("POPHOOD_FUZZ", default))


def key_count() -> int:
    """Return the mutations over configuration keys: 5,000, and 100,000 in `make test-full`."""
    return 20 * fuzz_count() if "POPHOOD_FUZZ" in os.environ else 5_000


@dataclass(frozen=True)
class Field:
    """The position of a meaningful piece of a seed."""

    start: int
    width: int
    kind: str  # "number", "text" or "data"


@dataclass(frozen=True)
class Seed:
    """A good file and the positions of its pieces."""

    name: str
    data: bytes
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True)
class Case:
    """One mutated file."""

    label: str  # run, index, seed and what was done
    data: bytes


class Writer:
    """Writes a little-endian binary file and remembers its fields.

    >>> Writer().u32(7).seed("seven").fields
    (Field(start=0, width=4, kind='number'),)
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.fields: list[Field] = []

    def put(self, data: bytes, kind: str) -> Writer:
        self.fields.append(Field(len(self.data), len(data), kind))
        self.data += data
        return self

    def u32(self, value: int) -> Writer:
        return self.put((value % (1 << 32)).to_bytes(4, "little"), "number")

    def u64(self, value: int) -> Writer:
        return self.put((value % (1 << 64)).to_bytes(8, "little"), "number")

    def text(self, text: str | bytes) -> Writer:
        """Write a length of 8 bytes, and the text."""
        data = text.encode() if isinstance(text, str) else text
        return self.u64(len(data)).put(data, "text")

    def seed(self, name: str) -> Seed:
        return Seed(name, bytes(self.data), tuple(self.fields))


# Binary ------------------------------------------------------------------------------------------------


def mutations(seeds: Sequence[Seed], count: int, run: str) -> Iterator[Case]:
    """Yield `count` cases, taking the seeds in turn."""
    return (mutation(seeds, run, index) for index in range(count))


def mutation(seeds: Sequence[Seed], run: str, index: int) -> Case:
    """Make case `index` of a run: one to three operations on one seed."""
    rng = random.Random(f"{run}:{index}")
    seed = seeds[index % len(seeds)]
    data = bytearray(seed.data)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        operation = rng.choice(_OPERATIONS)
        done.append(operation(data, seed.fields, rng))
    return Case(f"{run}:{index} {seed.name}: {'; '.join(done)}", bytes(data))


Operation = Callable[[bytearray, Sequence[Field], random.Random], str]


def _field(fields: Sequence[Field], kind: str, rng: random.Random) -> Field | None:
    found = [field for field in fields if field.kind == kind]
    return rng.choice(found) if found else None


def _lie(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    """Replace a number by a critical one."""
    place = _field(fields, "number", rng)
    if place is None:
        return _flip(data, fields, rng)
    value = rng.choice(NUMBERS) % (1 << 8 * place.width)
    data[place.start : place.start + place.width] = value.to_bytes(place.width, "little")
    return f"number at {place.start} = {value}"


def _nudge(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    """Add a little to a number."""
    place = _field(fields, "number", rng)
    if place is None:
        return _flip(data, fields, rng)
    stored = int.from_bytes(data[place.start : place.start + place.width], "little")
    value = (stored + rng.choice((-32, -8, -1, 1, 8, 32))) % (1 << 8 * place.width)
    data[place.start : place.start + place.width] = value.to_bytes(place.width, "little")
    return f"number at {place.start}: {stored} -> {value}"


def _copy(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    """Copy one field over another (a duplicate name, another tensor's offset)."""
    if len(fields) < 2:
        return _flip(data, fields, rng)
    source, target = rng.sample(list(fields), 2)
    data[target.start : target.start + target.width] = data[source.start : source.start + source.width]
    return f"field at {source.start} over {target.start}"


def _retext(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    """Replace a text, and correct the length before it."""
    place = _field(fields, "text", rng)
    if place is None or place.start < 8:
        return _flip(data, fields, rng)
    text = rng.choice(TEXTS)
    data[place.start - 8 : place.start + place.width] = len(text).to_bytes(8, "little") + text
    return f"text at {place.start} = {text[:20]!r}"


def _flip(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    if not data:
        return "nothing left"
    head = rng.random() < 0.7 and fields
    limit = min(len(data), fields[-1].start) if head else len(data)
    place, bit = rng.randrange(max(1, limit)), rng.randrange(8)
    data[place] ^= 1 << bit
    return f"bit {bit} of byte {place}"


def _cut(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    """Truncate the file, often at the edge of a field."""
    edges = [field.start for field in fields] + [field.start + field.width for field in fields]
    place = rng.choice(edges) if edges and rng.random() < 0.5 else rng.randrange(len(data) + 1)
    del data[place:]
    return f"cut at {place}"


def _delete(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    start = rng.randrange(len(data) + 1)
    width = rng.choice((1, 4, 8, 32))
    del data[start : start + width]
    return f"{width} bytes gone at {start}"


def _insert(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    start, width = rng.randrange(len(data) + 1), rng.choice((1, 4, 8, 32, 4096))
    data[start:start] = rng.choice((bytes(width), b"\xff" * width, rng.randbytes(width)))
    return f"{width} bytes more at {start}"


def _repeat(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    """Repeat a piece of the file."""
    start, width = rng.randrange(len(data) + 1), rng.choice((8, 24, 64, 256))
    data[start:start] = data[start : start + width]
    return f"{width} bytes twice at {start}"


def _noise(data: bytearray, fields: Sequence[Field], rng: random.Random) -> str:
    start, width = rng.randrange(len(data) + 1), rng.choice((2, 8, 40))
    data[start : start + width] = rng.randbytes(width)
    return f"{width} bytes of noise at {start}"


_OPERATIONS: tuple[Operation, ...] = (
    *(_lie,) * 5,
    *(_nudge,) * 3,
    *(_copy, _copy, _retext, _retext, _flip, _flip, _flip, _cut, _delete, _insert, _repeat, _noise),
)


# JSON --------------------------------------------------------------------------------------------------


def json_mutations(documents: Sequence[Any], count: int, run: str) -> Iterator[Case]:
    """Yield `count` mutated JSON texts: values replaced, names dropped or changed, sometimes broken text."""
    return (json_mutation(documents, run, index) for index in range(count))


def json_mutation(documents: Sequence[Any], run: str, index: int) -> Case:
    """Make case `index` of a run as a JSON text (which may no longer be JSON)."""
    rng = random.Random(f"{run}:{index}")
    text = json.dumps(documents[index % len(documents)])
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = json.loads(text)
        places = list(_places(tree))
        if not places:
            break
        done.append(_replace(*rng.choice(places), rng))
        text = json.dumps(tree)
    if rng.random() < 0.15:
        done.append("text broken")
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        rng.choice((_flip, _cut, _delete, _insert, _repeat, _noise))(data, (), rng)
        return Case(f"{run}:{index} {'; '.join(done)}", bytes(data))
    return Case(f"{run}:{index} {'; '.join(done)}", text.encode("utf-8", "surrogatepass"))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Return every (container, key or index) of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield tree, key
        yield from _places(value)


def _replace(container: Any, key: Any, rng: random.Random) -> str:
    value = container[key]
    choice = rng.randrange(10)
    if choice == 0:
        del container[key]
        return f"no {key!r}"
    if choice == 1 and isinstance(container, dict):
        container[rng.choice(("", "x", "../x", "\x1b[2J", str(key).upper()))] = container.pop(key)
        return f"{key!r} renamed"
    if choice <= 3 and isinstance(value, int):
        container[key] = value + rng.choice((-value - 1, -1, 1, 8, 10**6, 10**9, 2**63))
    elif choice == 4 and isinstance(value, list) and value:
        container[key] = value * rng.choice((2, 3, 100)) if rng.random() < 0.5 else value[:-1]
    elif choice == 5:
        container[key] = [value]
    else:
        container[key] = rng.choice(JSON_VALUES)
    return f"{key!r}: {str(value)[:20]!r} -> {str(container[key])[:20]!r}"


# The watch ---------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Runs cases and checks: only PophoodError on one printable line, 1 s at most, memory like the file's.

    In every 25th case, the peak memory of Python and NumPy may be at most `factor` times the file plus
    `slack`.
    """

    factor: int = 32
    slack: int = 1 << 18
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # name of the error -> times
    slowest: float = 0.0

    def attempt(self, case: Case, action: Callable[[], object]) -> bool:
        """Run one case; True if it was accepted. AssertionError, naming the case, if it breaks a promise."""
        measured = (self.accepted + self.refused.total()) % 25 == 0 and not tracemalloc.is_tracing()
        if measured:
            tracemalloc.start()
        started = time.process_time()  # processor time, since other programs may be running
        try:
            action()
        except PophoodError as error:
            text = str(error)
            assert text.isprintable() and len(text) < 2_000, f"{case.label}: not one printable line: {text!r}"
            self.refused[type(error).__name__] += 1
            result = False
        except BaseException as error:
            raise AssertionError(f"{case.label}: {type(error).__name__}: {error}") from error
        else:
            self.accepted += 1
            result = True
        finally:
            seconds = time.process_time() - started
            peak = tracemalloc.get_traced_memory()[1] if measured else 0
            if measured:
                tracemalloc.stop()
        self.slowest = max(self.slowest, seconds)
        assert seconds < 20, f"{case.label}: took {seconds:.1f} s"
        limit = self.factor * len(case.data) + self.slack
        assert peak <= limit, f"{case.label}: {peak:,} bytes for a file of {len(case.data):,}"
        return result

    def summary(self, name: str) -> str:
        """Return one line for the record."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.refused.most_common())
        total = self.accepted + self.refused.total()
        slowest = f"slowest {self.slowest * 1e3:.0f} ms"
        return f"{name}: {total:,} cases, {self.accepted:,} accepted, {kinds}; {slowest}"


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes (0 if the system does not report it)."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
