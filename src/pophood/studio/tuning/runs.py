"""Runs: what was asked for, how each one stands, and its events, all read from its folder.

    studio/runs/ID/
      run.json        what was asked for, its name  said.log      what the process printed on stderr
      lock, pid       of the process                result.json   its last word: the report card
      out/NAME/       the folder of `pophood tune`: events.jsonl, checkpoints, the adapter, the report

Nothing about a run is kept in memory, so that a restart of the server, or its crash, changes nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from pophood.errors import PophoodError, quoted
from pophood.openai.errors import MISSING, ApiError
from pophood.studio.history.conversations import new_id
from pophood.studio.tuning.process import LOCK, RESULT, SAID, begin, is_running, send
from pophood.system import atomic_write

CONFLICT = 409
OUT = "out"
END_BYTES = 4096  # at the end of events.jsonl, which hold its last event if that is short
HARD = signal.Signals(9 if os.name == "posix" else signal.SIGTERM)  # SIGKILL has no name on Windows
FLAGS = {
    "method": "--method",
    "minutes": "--minutes",
    "steps": "--steps",
    "epochs": "--epochs",
    "rank": "--rank",
    "learning_rate": "--learning-rate",
    "length": "--length",
    "batch_size": "--batch-size",
    "validation": "--validation",
    "seed": "--seed",
    "format": "--format",
}


def arguments_of(files: Sequence[Path], model: str, options: Mapping[str, Any]) -> list[str]:
    """Return the arguments of `pophood tune` for what a page asks for.

    >>> arguments_of([Path("a.txt")], "gpt2", {"minutes": 2.0, "prompts": ["Hi"]})
    ['a.txt', '-m', 'gpt2', '--minutes=2.0', '--prompt=Hi']
    """
    words = [str(file) for file in files] + ["-m", model]
    for name, value in options.items():
        if name == "prompts":
            words += [f"--prompt={prompt}" for prompt in value or ()]
        elif name == "lens":
            words += ["--lens"] if value else []
        elif name == "answers_only" and value is not None:
            words.append("--completions-only" if value else "--everything")
        elif value is not None:
            words.append(f"{FLAGS[name]}={value}")
    return words


def run_name(asked: Mapping[str, Any], taken: Collection[str]) -> str:
    """Return the name of a run: the one that was asked for, else that of its first file and the method.

    >>> run_name({"files": ["notes.txt"]}, ()), run_name({"files": ["a.txt"], "name": "Sea"}, {"Sea"})
    ('notes-lora', 'Sea 2')
    """
    given = " ".join(str(asked.get("name") or "").split())
    name = given or f"{Path(asked['files'][0]).stem}-{asked.get('method') or 'lora'}"
    numbered = (f"{name}{' ' if given else '-'}{n}" for n in count(2))
    return name if name not in taken else next(one for one in numbered if one not in taken)


def folder_name(name: str) -> str:
    """Return a name for the folder of a result.

    >>> folder_name("The sea, again: 2"), folder_name("../..")
    ('The-sea-again-2', 'result')
    """
    return re.sub(r"[^\w.]+", "-", name)[:60].strip("-.") or "result"


class Runs:
    """The runs in a folder. Raises ApiError for what cannot be done."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, arguments: Sequence[str], asked: Mapping[str, Any], taken: Collection[str] = ()) -> str:
        """Start a run and return its id. One runs at a time; names in `taken` are those of other adapters."""
        others = self.listed()
        if any(run["state"] == "running" for run in others):
            raise ApiError(CONFLICT, "a run is running: pause or cancel it first", code="run_running")
        run = new_id()
        folder = self._folder / run
        folder.mkdir(mode=0o700, parents=True)
        name = run_name(asked, {*taken, *(one["name"] for one in others)})
        out = f"{OUT}/{folder_name(name)}"
        words = [*arguments, "-o", str(folder / out), "--json"]
        (folder / OUT).mkdir()
        facts = {"id": run, "created": time.time(), "words": words, "asked": dict(asked)}
        self._write(folder, {**facts, "name": name, "out": out})
        begin(words, folder)
        return run

    def listed(self) -> list[dict[str, Any]]:
        """Return every run, the newest first."""
        found = sorted(self._folder.glob("*/run.json"), reverse=True) if self._folder.is_dir() else []
        return [self._told(path.parent) for path in found]

    def one(self, run: str) -> dict[str, Any]:
        """Return a run with its report card, if there is one."""
        folder = self._known(run)
        card: Any = None
        if (folder / RESULT).is_file() and (text := (folder / RESULT).read_text("utf-8").strip()):
            try:
                card = json.loads(text)
            except ValueError:
                card = None  # it is being written
        return self._told(folder) | {"card": card}

    def pause(self, run: str) -> None:
        """Let a run save what it has, write its result so far, and end; `resume` goes on from there."""
        if not send(self._known(run), signal.SIGINT):
            raise ApiError(CONFLICT, "this run is not running", code="run_not_running")

    def resume(self, run: str) -> None:
        """Go on with a run that was paused, or whose process has died, from its last checkpoint.

        One whose minutes are up gets as many again.
        """
        folder = self._known(run)
        told = self._told(folder)
        if told["state"] not in ("paused", "cancelled"):
            raise ApiError(CONFLICT, f"this run is {told['state']}", code="run_not_paused")
        if any(other["state"] == "running" for other in self.listed()):
            raise ApiError(CONFLICT, "another run is running: pause it first", code="run_running")
        facts = self._facts(folder)
        files = [word for word in facts["words"] if not word.startswith("-")]
        data = files[: facts["words"].index("-m")]
        model = facts["words"][facts["words"].index("-m") + 1]
        words = [*data, "-m", model, "-o", str(self._out(folder)), "--json", "--resume"]
        if told["ended"] == "clock":
            started = [event for event in self.events(run, 0) if event["event"] == "started"]
            words.append(f"--minutes={started[-1]['minutes']}")
        self._write(folder, {**facts, "cancelled": False})
        begin(words, folder)

    def cancel(self, run: str) -> None:
        """End a run at once; nothing but its last checkpoint stays."""
        folder = self._known(run)
        self._write(folder, {**self._facts(folder), "cancelled": True})
        if not send(folder, HARD):
            raise ApiError(CONFLICT, "this run is not running", code="run_not_running")

    def delete(self, run: str) -> None:
        """Delete a run that has ended, with its result."""
        folder = self._known(run)
        if is_running(folder):
            raise ApiError(CONFLICT, "this run is running: cancel it first", code="run_running")
        shutil.rmtree(folder)

    def pause_all(self) -> None:
        """Let every run save and end, at the end of the server."""
        for path in self._folder.glob(f"*/{LOCK}"):
            send(path.parent, signal.SIGINT)

    def events(self, run: str, after: int) -> list[dict[str, Any]]:
        """Return the events of a run beyond the first `after`, each with its number."""
        path = self._out(self._known(run)) / "events.jsonl"
        if not path.is_file():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]  # the last one may not be whole
        return [{"number": n, **json.loads(line)} for n, line in enumerate(lines[after:], after + 1)]

    def said(self, run: str, after: int) -> list[str]:
        """Return the lines that the process has printed beyond the first `after`."""
        path = self._known(run) / SAID
        lines = path.read_text("utf-8", "replace").split("\n")[:-1] if path.is_file() else []
        return lines[after:]

    def adapter(self, run: str) -> Path:
        """Return the folder of a run's adapter. Raises ApiError if it has written none."""
        place = self._out(self._known(run))
        if not (place / "adapter_config.json").is_file():
            raise ApiError(CONFLICT, "this run has written no adapter", code="no_adapter")
        return place

    def note_used(self, run: str) -> None:
        """Remember that the adapter of a run is used, for later servers."""
        folder = self._known(run)
        self._write(folder, {**self._facts(folder), "used": True})

    def used(self) -> list[dict[str, Any]]:
        """Return the runs whose adapters are used, the oldest first."""
        return [run for run in reversed(self.listed()) if run["used"]]

    def report(self, run: str) -> bytes:
        """Return the report of a run as a page. Raises ApiError if there is none."""
        path = self._out(self._known(run)) / "report.html"
        if not path.is_file():
            raise ApiError(404, "this run has no report yet", MISSING)
        return path.read_bytes()

    def export(self, run: str, to: str, kind: str | None) -> tuple[list[str], Path]:
        """Return the arguments of `pophood export` for a run's result, and where it goes: a new place."""
        folder = self._known(run)
        told = self._told(folder)
        if told["state"] not in ("finished", "paused"):
            raise ApiError(CONFLICT, f"this run is {told['state']}: it has no result", code="no_result")
        words, out = self._facts(folder)["words"], self._out(folder)
        model = [words[words.index("-m") + 1], "--adapter", str(out)] if told["adapter"] else [str(out)]
        name = folder_name(told["name"]) + (f"-{kind}" if kind else "")
        place = folder / "exports" / new_id() / f"{name}{'.gguf' if to == 'gguf' else ''}"
        place.parent.mkdir(parents=True)
        return [*model, "--to", str(place), *(["--type", kind] if kind else [])], place

    # ---- the folder ----

    def _known(self, run: str) -> Path:
        folder = self._folder / run
        if not run.isalnum() or not (folder / "run.json").is_file():
            raise ApiError(404, f"there is no run {quoted(run)}", MISSING)
        return folder

    def _facts(self, folder: Path) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
        return facts

    def _out(self, folder: Path) -> Path:
        place: str = self._facts(folder).get("out", OUT)
        return folder / place

    def _write(self, folder: Path, facts: Mapping[str, Any]) -> None:
        atomic_write(folder / "run.json", json.dumps(facts).encode())

    def _ended(self, folder: Path) -> str | None:
        """Return the reason of a run's last event, if that is its end."""
        path = self._out(folder) / "events.jsonl"
        if not path.is_file():
            return None
        with path.open("rb") as file:
            file.seek(-min(END_BYTES, path.stat().st_size), os.SEEK_END)
            last = file.read().split(b"\n")[-2:-1]
        event = json.loads(last[0]) if last and last[0].startswith(b'{"event": "finished"') else {}
        reason: str | None = event.get("reason")
        return reason

    def _told(self, folder: Path) -> dict[str, Any]:
        facts, state = self._facts(folder), self._state(folder)
        said, out = self.said(facts["id"], 0), self._out(folder)
        return {
            "id": facts["id"],
            "created": facts["created"],
            **facts["asked"],
            "name": facts.get("name", facts["id"]),
            "used": facts.get("used", False),
            "state": state,
            "ended": None if state == "running" else self._ended(folder),
            "error": (said or ["the process ended without a word"])[-1] if state == "failed" else None,
            "out": str(out),
            "adapter": (out / "adapter_config.json").is_file(),
            "report": (out / "report.html").is_file(),
            "command": " ".join(["pophood", "tune", *facts["words"]]),
        }

    def _state(self, folder: Path) -> str:
        """Return running, finished, paused (it can go on), cancelled (it can, too), or failed."""
        if is_running(folder):
            return "running"
        out = self._out(folder)
        can_go_on = any((out / "checkpoints").glob("*"))
        if self._facts(folder).get("cancelled"):
            return "cancelled"
        if can_go_on:
            return "paused"
        return "finished" if (out / "report.json").is_file() else "failed"


def check_trainer(there: bool) -> None:
    """Raise PophoodError, with the command that installs it, unless torch is here."""
    if not there:
        raise PophoodError("tuning needs torch, not installed here: pip install 'pophood[train]'")
