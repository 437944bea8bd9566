"""Memory is bounded for data of any size, with a trivial vocabulary and with a real one."""

from __future__ import annotations

import json
import os
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from pophood.text.tokenizer import Tokenizer
from pophood.train.data import DataOptions, PackedSampler, open_data
from tests import needs, processes
from tests.conftest import ROOT
from tests.train.data.samples import SHAKESPEARE, byte_level

SIZE = 6 << 20


class Quick:
    """An encoder with one id per four characters, so that reading alone uses memory."""

    def encode(self, text: str) -> list[int]:
        return list(text[::4].encode("latin-1", "replace"))

    def encode_special(self, text: str) -> list[int]:
        return self.encode(text)

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        return [id_ for part in parts for id_ in ([part] if isinstance(part, int) else self.encode(part))]


def written(path: Path, size: int) -> Path:
    """Write a text, or JSONL of its parts, of about this many bytes."""
    text = SHAKESPEARE.read_text(encoding="utf-8")
    with path.open("w", encoding="utf-8") as file:
        for number in range(size // len(text) + 1):
            if path.suffix == ".txt":
                file.write(f"{number}\n{text}")
            else:
                stretches = (f"{number} {text[at : at + 8000]}" for at in range(0, len(text), 8000))
                file.writelines(json.dumps({"text": stretch}) + "\n" for stretch in stretches)
    return path


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_reading_takes_a_few_stretches(suffix: str, tmp_path: Path) -> None:
    """Reading 6 MiB takes less than that: only pieces of 64 Ki characters are in the threads."""
    path = written(tmp_path / f"a.{suffix}", SIZE)
    vocabulary = byte_level()
    tokenizer = Tokenizer(Quick(), vocabulary.vocabulary, stops=vocabulary.stops, names=vocabulary.names)
    tracemalloc.start()
    data = open_data(path, tokenizer, None, DataOptions(cache=tmp_path, length=512))
    peak = tracemalloc.get_traced_memory()[1]
    pieces = len(PackedSampler(data.train, 4, 512, 0).packing(0).pieces)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert data.report.tokens > SIZE / 4.5
    print(f"{peak / 2**20:.1f} MiB at most, {after / 2**20:.1f} at the end")
    assert peak < 8 << 20
    assert after < 4 << 20 and pieces * 512 > 0.5 * data.report.tokens


MEASURED = """
import json, sys, threading, time
from pathlib import Path
from pophood.train.data import DataOptions, PackedSampler, open_data
from tests.train.data.samples import gpt2

def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024

tokenizer = gpt2()
tokenizer.encode("x")
start, peak, done = anonymous(), [0.0], threading.Event()

def watch():
    while not done.wait(0.02):
        peak[0] = max(peak[0], anonymous())

thread = threading.Thread(target=watch)
thread.start()
began = time.process_time()
data = open_data(Path(sys.argv[1]), tokenizer, None, DataOptions(cache=Path(sys.argv[2])))
seconds = time.process_time() - began
sampler = PackedSampler(data.train, 4, 1024, 0)
batches = sampler.batches_per_epoch(0)
done.set()
thread.join()
print(json.dumps({"start": start, "peak": peak[0], "tokens": data.report.tokens, "seconds": seconds,
                  "batches": batches, "fill": sampler.fill()}))
"""


@pytest.mark.full
def test_three_hundred_megabytes(tmp_path: Path) -> None:
    """300 MB of text with GPT-2's vocabulary take at most 120 MiB more than before. Takes minutes."""
    needs.linux()
    path = written(tmp_path / "large.txt", 300_000_000)
    done = processes.run(
        [sys.executable, "-c", MEASURED, str(path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    facts = json.loads(done.stdout)
    print(facts, f"{facts['tokens'] / facts['seconds']:,.0f} tokens per second of processor time")
    assert facts["peak"] - facts["start"] < 120
    assert facts["fill"] > 0.93
