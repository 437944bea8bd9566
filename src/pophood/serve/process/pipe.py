"""Messages as bytes on the pipes between two processes of pophood: a length, then a pickle.

Unpickling runs what the bytes ask for. That is right here alone: both ends are this program, the pipes are
inherited and have no name, and nobody else can write to them. Texts of requests and files are values inside,
never pickles themselves.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

HEAD = 4  # bytes of the length
PART = 1 << 16  # bytes of one read: what a pipe of Linux holds
Reducer = Callable[[Any], Any]


class Reducers(dict[type, Reducer]):
    """How each class is pickled: a dataclass or a NamedTuple as a call with the values of its fields.

    That takes half the time of what `dataclass(slots=True)` brings along. For an array of a few numbers it is
    a fifth of NumPy's own.
    """

    def __missing__(self, kind: type) -> Reducer:
        if kind is MappingProxyType:
            reducer: Reducer = lambda proxy: (read_only, (dict(proxy),))  # noqa: E731
        elif kind is np.ndarray:
            reducer = lambda array: (array_of, (array.tobytes(), array.dtype.str, array.shape))  # noqa: E731
        elif issubclass(kind, tuple) and "_fields" in vars(kind):  # a NamedTuple
            reducer = lambda record: (kind, tuple(record))  # noqa: E731
        elif is_dataclass(kind) and all(field.init and not field.kw_only for field in fields(kind)):
            names = [field.name for field in fields(kind)]
            taken = attrgetter(*names) if names else tuple[()]
            if len(names) == 1:
                reducer = lambda record: (kind, (taken(record),))  # noqa: E731
            elif names:
                reducer = lambda record: (kind, taken(record))  # noqa: E731
            else:
                reducer = lambda _: (kind, ())  # noqa: E731
        else:
            raise KeyError(kind)  # pickled as usual
        self[kind] = reducer
        return reducer


def read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """Return a view of a dictionary that cannot be changed; a class of its own has no name to pickle."""
    return MappingProxyType(values)


def array_of(content: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array that cannot be written to."""
    return np.frombuffer(content, dtype).reshape(shape)


_REDUCERS = Reducers()


def packed(message: object) -> bytes:
    """Return a message as bytes. Raises TypeError for what cannot be pickled."""
    buffer = io.BytesIO()
    buffer.write(bytes(HEAD))
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(message)
    buffer.seek(0)
    buffer.write((len(buffer.getbuffer()) - HEAD).to_bytes(HEAD, "little"))
    return buffer.getvalue()


class _Unpickler(pickle.Unpickler):
    """Looks each class up once in the life of the process.

    The usual lookup is an attribute of a module under a new string, and CPython's cache of attributes keeps
    up to 4,096 such strings, each of which holds a block of memory that would be returned otherwise.
    """

    _found: ClassVar[dict[tuple[str, str], Any]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        found = self._found.get((module, name))
        if found is None:
            found = self._found[module, name] = super().find_class(module, name)
        return found


class Unpacker:
    """Makes messages of bytes that arrive in parts of any size.

    >>> parts = Unpacker()
    >>> whole = packed([1, 2]) + packed("abc")
    >>> parts.feed(whole[:9]), parts.feed(whole[9:])
    ([], [[1, 2], 'abc'])
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, part: bytes | memoryview) -> list[Any]:
        """Take the next bytes, and return the messages that are whole now."""
        held, start = self._held, 0
        held += part
        messages = []
        while len(held) - start >= HEAD:
            begin = start + HEAD
            end = begin + int.from_bytes(held[start:begin], "little")
            if end > len(held):
                break
            messages.append(_Unpickler(io.BytesIO(bytes(held[begin:end]))).load())
            start = end
        del held[:start]
        return messages


class PipeReader:
    """The reading end of a pipe.

    All is read into one buffer that stays. `os.read` asks the heap for PART bytes each time and returns most
    of them, so that what others take meanwhile lies behind, and the heap grows for hours.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = io.FileIO(descriptor, closefd=False)
        self._buffer = memoryview(bytearray(PART))
        self._unpacker = Unpacker()

    def receive(self) -> list[Any] | None:
        """Read once; return the messages that are whole now, None at the end of the pipe. Raises OSError."""
        count = self._file.readinto(self._buffer)
        if count is None:  # nothing is there, and the descriptor does not block
            return []
        return self._unpacker.feed(self._buffer[:count]) if count else None


class PipeWriter:
    """The writing end of a pipe, for any number of threads, which wait while the pipe is full.

    `gone` is called when nobody reads any more.
    """

    def __init__(self, descriptor: int, gone: Callable[[], object]) -> None:
        self._descriptor, self._gone = descriptor, gone
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write a message, as one write if the pipe has room."""
        rest = memoryview(packed(message))
        with self._lock:
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                self._gone()
