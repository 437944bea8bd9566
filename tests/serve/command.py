"""`pophood serve` as a process: its facts, its log, signals to it, and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import processes


@dataclass(eq=False)
class Command:
    """A running server. `said` are the lines of stderr so far."""

    process: subprocess.Popen[str]
    reader: threading.Thread
    facts: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        port = self.facts["port"]
        assert isinstance(port, int)
        return port

    @property
    def key(self) -> str:
        key = self.facts["key"]
        assert isinstance(key, str)
        return key

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def exit_code(self) -> int:
        """Wait for the end of the process, and of what it says."""
        code = self.process.wait(processes.HANG_SECONDS)
        self.reader.join(processes.HANG_SECONDS)
        return code


@contextmanager
def command(model: Path, *arguments: str, home: Path, **environment: str) -> Iterator[Command]:
    """Start `pophood serve MODEL --json` at a free port, and wait until it accepts connections."""
    words = [sys.executable, "-m", "pophood", "serve", str(model), "--json", "--port", "0", *arguments]
    settings = {name: value for name, value in os.environ.items() if name != "POPHOOD_API_KEY"}
    settings |= {"POPHOOD_HOME": str(home), "POPHOOD_OFFLINE": "1", "PYTHONUTF8": "1"} | environment
    with processes.started(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings) as process:
        assert process.stdout is not None and process.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(map(str.rstrip, process.stderr or ())))
        running = Command(process, reader, said=said)
        reader.start()
        try:
            line = process.stdout.readline()
            assert line, running.said
            running.facts = json.loads(line)
            yield running
        finally:
            process.kill()
            reader.join()
