"""Messages as bytes: every record survives, in parts of any size, and a large one waits for nobody."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.generate import GenerateSettings, Timings
from pophood.sampling import SamplingSettings
from pophood.serve.capacity import Capacity
from pophood.serve.messages import (
    Begun,
    Cancel,
    Drain,
    Ended,
    Failed,
    Gauges,
    PromptRead,
    PromptScored,
    Submit,
    Tokens,
    UseThreads,
)
from pophood.serve.process.pipe import PipeReader, PipeWriter, Unpacker, packed
from pophood.serve.process.records import (
    CacheFacts,
    EngineFault,
    LoadedFacts,
    LoadLine,
    LoadOrder,
    LoadProgress,
    LoadRefusal,
)
from tests.serve.records import token

BIAS = MappingProxyType({3: -1.0})
RECORDS: list[Any] = [
    Submit(1, ("me", "x"), (1, 2), GenerateSettings(max_tokens=3), (("notes", 0.5),), 3, generates=False),
    Submit(2, None, (), GenerateSettings(sampling=SamplingSettings(logit_bias=BIAS))),
    Cancel(1),
    Drain(5.0),
    UseThreads(2),
    [Begun(1, 2, 3, 4), PromptRead(1, 2, 3), PromptScored(1, ()), Tokens(1, (token(7, "a"),))],
    [Ended(1, {0: "stop"}, Timings(1.0, 2)), Failed(1, "overflow", "too long", 9, 8), Gauges(1, 2, 3, 4)],
    LoadOrder("tiny", Path("/models/tiny"), adapters=(("one", "place"),), cache_dir=Path("/cache")),
    LoadProgress(1, 2),
    LoadLine("é"),
    LoadedFacts(
        *("tiny", "abc", "auto", "f16", "avx2", "auto", 2, 3, 4, 5, 6, 7, 8, Capacity(64, 2, 8)),
        *(CacheFacts(Path("/cache"), 1, 2, 3), ("loaded",), ()),
    ),
    LoadRefusal("BadInput", "no", "where"),
    EngineFault("why"),
]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=50))
@settings(deadline=None)
def test_every_record_survives_in_parts_of_any_size(sizes: list[int]) -> None:
    whole, unpacker, found = b"".join(map(packed, RECORDS)), Unpacker(), []
    while whole:
        for size in sizes:
            found += unpacker.feed(whole[:size])
            whole = whole[size:]
    assert found == RECORDS


def test_what_cannot_be_pickled_is_an_error_at_once() -> None:
    with pytest.raises((TypeError, AttributeError)):
        packed(threading.Lock())


def test_several_threads_write_whole_messages_through_a_small_pipe() -> None:
    source, sink = os.pipe()
    writer = PipeWriter(sink, gone=pytest.fail)
    messages = [bytes([number]) * 100_000 for number in range(4)]  # each is more than a pipe holds
    writers = [threading.Thread(target=writer.send, args=(message,)) for message in messages]
    for thread in writers:
        thread.start()
    unpacker, found = Unpacker(), list[bytes]()
    while len(found) < len(messages):
        found += unpacker.feed(os.read(source, 4096))
    for thread in writers:
        thread.join()
    os.close(source)
    os.close(sink)
    assert sorted(found) == messages


def test_a_reader_tells_what_is_not_there_yet_from_the_end() -> None:
    source, sink = os.pipe()
    os.set_blocking(source, False)
    reader = PipeReader(source)
    assert reader.receive() == []
    os.write(sink, packed("one") + packed("two")[:5])
    assert reader.receive() == ["one"]
    os.write(sink, packed("two")[5:])
    assert reader.receive() == ["two"]
    os.close(sink)
    assert reader.receive() is None
    os.close(source)


def test_a_writer_hears_that_nobody_reads() -> None:
    source, sink = os.pipe()
    os.close(source)
    heard: list[bool] = []
    PipeWriter(sink, gone=lambda: heard.append(True)).send("x")
    os.close(sink)
    assert heard == [True]
