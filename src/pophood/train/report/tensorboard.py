"""An event file with a run's numbers and samples for TensorBoard. Only this file uses tensorboardX.

The file is rewritten from `events.jsonl` whenever a run starts or resumes. So repeated steps occur once, and
a run that started without the file gets all of it.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.errors import NotFound

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FILES = "events.out.tfevents.*"
CURVES = {  # field of `events.Step` -> its curve
    "loss": "loss/train",
    "gradient": "gradient_length",
    "learning_rate": "learning_rate",
    "tokens_per_second": "tokens_per_second",
}
VALIDATION = "loss/validation"


class Board:
    """Writes the event file of a run's folder. `see` takes lines of `events.jsonl` as dictionaries.

    board = Board(Path("notes-lora"))
    board.begin(folder.events())
    board.see({"event": "evaluated", "step": 10, "loss": 2.5, "best": True})
    board.close()
    """

    def __init__(self, folder: Path) -> None:
        """Raise NotFound, with the command that installs it, without tensorboardX."""
        require_tensorboard()
        self.folder = folder
        self._writer: SummaryWriter | None = None
        self._prompts: dict[str, int] = {}  # prompt -> its number
        self._seconds = 0.0  # since the run began, at the last step
        self._began = 0.0  # wall time at which the run began

    def begin(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Replace the folder's event files by a new one with the events so far."""
        from tensorboardX import SummaryWriter

        self.close()
        for old in self.folder.glob(FILES):
            old.unlink()
        past = list(events)
        self._seconds = max((event.get("seconds", 0.0) for event in past), default=0.0)
        self._began, self._seconds = time.time() - self._seconds, 0.0
        self._writer = SummaryWriter(str(self.folder), flush_secs=10)
        for event in past:
            self.see(event)

    def see(self, event: Mapping[str, Any]) -> None:
        """Add an event; it reaches the file within ten seconds, an evaluation at once."""
        writer = self._writer
        if writer is None:
            return
        self._seconds = event.get("seconds", self._seconds)
        kind, now = event["event"], self._began + self._seconds
        if kind == "step":
            for field, name in CURVES.items():
                writer.add_scalar(name, event[field], event["step"], now)
        elif kind == "evaluated":
            writer.add_scalar(VALIDATION, event["loss"], event["step"], now)
            writer.flush()
        elif kind == "sampled":
            number = self._prompts.setdefault(event["prompt"], len(self._prompts) + 1)
            writer.add_text(f"sample/{number}", _verbatim(event), event["step"], now)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def has_board(folder: Path) -> bool:
    """Return whether a run's folder has an event file, which a resumed run continues."""
    return any(folder.glob(FILES))


def require_tensorboard() -> None:
    """Raise NotFound, with the command that installs it, if tensorboardX is missing."""
    if importlib.util.find_spec("tensorboardX") is None:
        command = shlex.join([sys.executable or "python", "-m", "pip", "install", "tensorboardX"])
        raise NotFound(f"--tensorboard needs tensorboardX, which is not installed: {command}")


def _verbatim(event: Mapping[str, Any]) -> str:
    """Return prompt and continuation indented by four spaces: Markdown shows such lines unchanged."""
    whole = f"{event['prompt']}{event['text']}"
    return "\n".join(f"    {line}" for line in whole.splitlines())
