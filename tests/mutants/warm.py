"""Runs pytest again and again without importing the large libraries again and again.

Started in the copy of the project. Each line of its input is JSON: pytest's arguments, and the most seconds.
Each is run in a fork of this process, which has imported what tests import and nothing of pophood or its
tests. The answer is a line: pytest's exit code, or "hung". What pytest prints goes to LOG.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

LOG = Path("build") / "mutant-tests.log"
LIBRARIES = (
    "pytest",
    "hypothesis",
    "numpy",
    "torch",
    "transformers",
    "tokenizers",
    "click.testing",
    "rich.table",
)


def run(arguments: list[str]) -> None:
    """In the fork: run pytest, with a session and an output of its own, and leave."""
    os.setsid()
    output = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 99
    try:
        import pytest

        code = int(pytest.main(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        arguments, seconds = json.loads(line)
        child = os.fork()
        if child == 0:
            run(arguments)
        print(ended(child, time.monotonic() + seconds), flush=True)


def ended(child: int, end: float) -> str:
    """Wait for the fork, until `end` at most, and kill what it leaves; its exit code, or "hung"."""
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if done[0] == 0:
        os.waitpid(child, 0)
        return "hung"
    return str(os.waitstatus_to_exitcode(done[1]))


if __name__ == "__main__":
    main()
