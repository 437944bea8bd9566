"""The turns of one side of `peers.py`: a process that answers lines of JSON. Standard library only.

A worker gives `serve` a class that loads a model. Its process says one line of facts, then answers every line
that it gets: `{"prompt": 512, "steps": 0}` with the tokens per second of that prompt, of the steps if there
are any; `{"ids": [...], "steps": 12}` with the greedy tokens after those ids; `{"memory": true}` with bytes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

CONTEXT = 1024
FIRST_ID, IDS = 100, 20_000  # ids that every model of the benchmarks has


class Peer(Protocol):
    """A loaded model.

    `facts` are its version, precision and settings, for the record.
    """

    facts: dict[str, Any]

    def generate(self, ids: list[int], steps: int) -> tuple[list[int], list[float]]:
        """Read a prompt into an empty context and choose 1 + `steps` tokens greedily.

        Returns the tokens, and the time (of `time.perf_counter`) at which each of them was known.
        """


def prompt_of(length: int, turn: int) -> list[int]:
    """Token ids; each turn begins with another one, so that nothing of the last turn is reused."""
    return [FIRST_ID + (turn * 37 + i) % IDS for i in range(length)]


def memory() -> dict[str, int]:
    """Bytes of this process in memory, mapped files included: now, and the most so far (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        name: 1024 * int(status[key].split()[0]) for name, key in (("resident", "VmRSS"), ("peak", "VmHWM"))
    }


def say(**what: Any) -> None:
    """Write one line of JSON."""
    print(json.dumps(what), flush=True)


def serve(load: type[Any]) -> None:
    """Load the model that the command line describes, and answer every line of standard input."""
    peer: Peer = load(**json.loads(sys.argv[1]))
    say(**peer.facts)
    for turn, line in enumerate(sys.stdin):
        what = json.loads(line)
        if what.get("memory"):
            say(**memory())
            continue
        steps = what["steps"]
        ids = what.get("ids") or prompt_of(what["prompt"], turn)
        begin = time.perf_counter()
        tokens, moments = peer.generate(ids, steps)
        assert len(tokens) == len(moments) == steps + 1, (len(tokens), len(moments), steps)
        rate = steps / (moments[-1] - moments[0]) if steps else len(ids) / (moments[0] - begin)
        say(rate=rate, tokens=tokens)
