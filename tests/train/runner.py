"""A run in a process of its own: `python -m tests.train.runner DATA OUT CASE-AS-JSON`; a line per event.

It resumes from the newest checkpoint of OUT, stops at Ctrl-C and SIGTERM, and ends with its state's hash.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

from pophood.errors import PophoodError
from pophood.train.checkpoint.save_load import latest, load
from pophood.train.events import as_line
from pophood.train.run.stopping import Stop
from tests.train.hashes import state_hash
from tests.train.small import Case, trainer_of


class Noting(Stop):
    """A `Stop` that reports when a signal arrives."""

    def __init__(self, note: Callable[[], object]) -> None:
        super().__init__()
        self.note = note

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.note()
        super()._handle(number, frame)


def main(data: Path, out: Path, fields: dict[str, object]) -> int:
    """Run to the end or to a stop, and return the exit code."""
    pause = float(str(fields.pop("pause", 0.0)))
    limit = int(str(fields.pop("memory", 0)))
    arrived: list[int] = []
    with Noting(lambda: arrived.append(trainer.step)) as stop:

        def asked() -> str | None:
            time.sleep(pause)
            return stop()

        trainer = trainer_of(Case(**fields), data, out=out, should_stop=asked)  # type: ignore[arg-type]
        if (path := latest(out, lambda line: print(json.dumps({"said": line})))) is not None:
            trainer.restore(*load(path))
        try:
            for event in trainer.run():
                print(as_line(event), flush=True)
                if limit and trainer.step == 6:
                    limit_memory(limit)
        except PophoodError as error:
            print(json.dumps({"error": type(error).__name__, "text": str(error)}), flush=True)
            return 1
        print(
            json.dumps({"hash": state_hash(trainer.state()), "threads": torch.get_num_threads()}), flush=True
        )
        if arrived:
            print(json.dumps({"arrived": arrived[0]}))
        return stop.exit_code


def limit_memory(more: int) -> None:
    """Limit this process to a few more bytes than it has now."""
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
