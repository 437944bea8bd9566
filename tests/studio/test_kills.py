"""SIGKILL while the history is written: what was acknowledged is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from pophood.studio.history.conversations import History
from tests import processes
from tests.needs import linux

WRITER = """
import sys
from pathlib import Path
from pophood.studio.history.conversations import History
history = History(Path(sys.argv[1]))
key, first = sys.argv[2], int(sys.argv[3])
history.create({"id": key, "title": key})
print("ready", flush=True)
for number in range(first, first + 100_000):
    token = {"id": number, "text": "x" * 200}
    history.write(key, {"id": f"n{number}", "role": "user", "text": str(number), "tokens": [token] * 5})
    if number % 3 == 0:
        grown = {"text": "grown", "after": 5, "tokens": [token]}
        history.write(key, {"id": f"n{number}", "role": "user"} | grown)
        print("grown", number, flush=True)
    else:
        print("wrote", number, flush=True)
"""


def killed_once(path: Path, turn: int, chance: random.Random) -> int:
    """Kill a writer after some acknowledged rows, and check all of them; return how many there were."""
    key = f"c{turn}"
    words = [sys.executable, "-c", WRITER, str(path), key, str(turn * 1_000_000)]
    acknowledged: list[list[str]] = []
    with processes.started(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        acknowledged += [process.stdout.readline().split() for _ in range(chance.randrange(1, 40))]
        process.kill()  # in the middle of a transaction, or between two
        acknowledged += [line.split() for line in process.stdout if line.endswith("\n")]
    history = History(path)
    nodes = {node["id"]: node for node in history.conversation(key)["nodes"]}
    history.close()
    for word, number in acknowledged:
        node = nodes[f"n{number}"]
        assert len(node["tokens"]) == (6 if word == "grown" else 5)
        assert node["text"] == ("grown" if word == "grown" else number)
    assert len(nodes) <= len(acknowledged) + 1
    return len(acknowledged)


def kill_often(path: Path, times: int) -> None:
    linux()
    chance = random.Random(times)
    rows = sum(killed_once(path, turn, chance) for turn in range(times))
    assert rows > times
    print(f"{times} times SIGKILL: {rows} acknowledged rows, 0 lost")


def test_no_acknowledged_row_is_lost(tmp_path: Path) -> None:
    kill_often(tmp_path / "history", 6)


@pytest.mark.full
def test_no_acknowledged_row_is_lost_in_200_kills(tmp_path: Path) -> None:
    kill_often(tmp_path / "history", 200)
