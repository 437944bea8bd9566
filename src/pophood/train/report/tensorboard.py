"""Board: the run's numbers and samples as an event file that TensorBoard shows. Optional, and the only user
of tensorboardX.

The file is made anew from `events.jsonl` whenever a run begins or is gone on with, so that a step that was
done again stands there once, and a run that began without one gets it whole.
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
    """Writes the event file of one run's folder. `see` takes the lines of `events.jsonl` as dictionaries.

    board = Board(Path("notes-lora"))
    board.begin(folder.events())
    board.see({"event": "evaluated", "step": 10, "loss": 2.5, "best": True})
    board.close()
    """

    def __init__(self, folder: Path) -> None:
        """Raises NotFound, with the command that brings it, without tensorboardX."""
        require_tensorboard()
        self.folder = folder
        self._writer: SummaryWriter | None = None
        self._prompts: dict[str, int] = {}  # and their numbers
        self._seconds = 0.0  # of the run, at the last step
        self._began = 0.0  # wall time of its beginning

    def begin(self, events: Iterable[Mapping[str, Any]]) -> None:
        """A new file with what has happened so far, in place of the files that are there."""
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
        """Add what an event says; whoever looks has it within ten seconds, and evaluations at once."""
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
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def has_board(folder: Path) -> bool:
    """Whether a run's folder has an event file, which a resumed run goes on with."""
    return any(folder.glob(FILES))


def require_tensorboard() -> None:
    """Raise NotFound, with the command that brings it, where tensorboardX is missing."""
    if "tensorboardX" in sys.modules:
        found = sys.modules["tensorboardX"] is not None
    else:
        found = importlib.util.find_spec("tensorboardX") is not None
    if not found:
        command = shlex.join([sys.executable or "python", "-m", "pip", "install", "tensorboardX"])
        raise NotFound(f"--tensorboard needs tensorboardX, which is not installed: {command}")


def _verbatim(event: Mapping[str, Any]) -> str:
    """Prompt and continuation as TensorBoard's Markdown shows them unchanged: lines set in by four spaces."""
    whole = f"{event['prompt']}{event['text']}"
    return "\n".join(f"    {line}" for line in whole.splitlines())
