"""BatchFacts: everything that the answers of a run depend on but their lines, kept beside the answers.

A run that is resumed must have the same, or the file would mix answers of two models or settings unnoticed.
What changes no bit is left out: threads, and how many lines are computed together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pophood.errors import BadFile, BadInput, short
from pophood.system import atomic_write

FORMAT = 1
_WORDS = {  # fields in words, for a refusal
    "model": "the model",
    "weights": "the model's files",
    "precision": "--precision",
    "kv": "--kv",
    "context": "--context",
    "computed": "the arithmetic of bfloat16 (it depends on the processor)",
    "adapters": "the adapters",
    "settings": "the settings",
    "seed": "--seed",
}
_FREE = ("format", "version", "created", "model")  # may differ: they change no answer


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """All that answers depend on. `created` counts seconds since 1970; `settings` are as JSON has them."""

    version: str
    created: int
    model: str
    weights: str
    precision: str
    kv: str
    context: int
    computed: str
    adapters: list[list[Any]]
    settings: Mapping[str, Any]
    seed: int

    def encode(self) -> bytes:
        """Return the JSON document."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False) + "\n").encode()


def place_of(answers: Path) -> Path:
    """Return the file beside the answers: `answers.jsonl.run`."""
    return answers.with_name(answers.name + ".run")


def write_facts(answers: Path, facts: BatchFacts) -> None:
    """Write them beside the answers; a reader sees the old file or the new. Raises PophoodError."""
    atomic_write(place_of(answers), facts.encode())


def read_facts(answers: Path) -> BatchFacts | None:
    """Read them; None if there are none. Raises BadFile for a file that is something else."""
    path = place_of(answers)
    try:
        data = json.loads(path.read_bytes())
        form = data.pop("format")
        facts = BatchFacts(**data)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadFile(f"{path}: is no record of `pophood batch`: delete it, or give --overwrite") from None
    if form != FORMAT:
        raise BadFile(f"{path}: was written by pophood {short(facts.version)}; --overwrite starts anew")
    return facts


def check_same(answers: Path, earlier: BatchFacts, now: BatchFacts) -> None:
    """Raise BadInput, naming what differs, unless the answers of both runs have the same bits."""
    old, new = _plain(earlier), _plain(now)
    differ = [name for name in new if name not in _FREE and old.get(name) != new[name]]
    if not differ:
        return
    words = ", ".join(_WORDS[name] for name in differ)
    first = differ[0]
    if first == "settings":
        first = next(name for name in new["settings"] if old["settings"].get(name) != new["settings"][name])
        before, after = old["settings"].get(first), new["settings"][first]
        words = words.replace("the settings", first)
    else:
        before, after = old[first], new[first]
    raise BadInput(
        f"{answers}: the run that began it had another value of {words} ({short(before)}, "
        f"now {short(after)}): use the same to go on, name another file, or start anew with --overwrite"
    )


def _plain(facts: BatchFacts) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(facts.encode())
    return found
