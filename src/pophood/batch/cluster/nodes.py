"""NodeReport: a machine of a cluster, and all that its answers depend on, made there.

The driver is the machine on which `pophood batch --ray` runs. Its own report says what the others must equal,
so that no line depends on the machine that answers it.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pophood import hub
from pophood.batch.cluster.digests import differing_file, file_digests
from pophood.batch.facts import BatchFacts
from pophood.batch.model import BatchModel, LineDefaults
from pophood.errors import BadFile, BadInput, NotFound, PophoodError, short
from pophood.model.lm import LM, load
from pophood.system import default_threads

_NOT_HERE = ("created", "model", "weights", "settings", "seed")  # of the driver's run, or in the digests


@dataclass(frozen=True, slots=True)
class RayModel:
    """A model as every machine finds and loads it; `name` is one of `pophood list` there, or a full path."""

    name: str
    precision: str = "auto"
    kv: str = "auto"
    context: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()  # folders or files on every machine

    @classmethod
    def of(cls, lm: LM, precision: str, kv: str) -> RayModel:
        """Return a model of this machine by the name that means it on others, with what was typed."""
        typed = Path(lm.name).absolute()
        here = typed == lm.path.absolute() or typed in lm.path.absolute().parents
        places = (
            (str(Path(place).absolute()) if Path(place).exists() else place, scale)
            for place, scale in lm.adapter_places
        )
        return cls(str(typed) if here else lm.name, precision, kv, lm.engine.context, tuple(places))

    def load(self, threads: int | None = None, *, weights: bool = True) -> LM:
        """Load it; nothing is downloaded. Raises subclasses of PophoodError."""
        located = hub.locate(self.name, offline=True, announce=_unheard)
        return load(
            located,
            precision=self.precision,
            kv=self.kv,
            context=self.context,
            threads=threads,
            adapters=self.adapters,
            announce=_unheard,
            weights=weights,
        )


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A machine, and what its answers depend on. `threads` are the physical cores that it may use."""

    host: str
    threads: int
    files: Mapping[str, str]  # of the model, with their digests
    facts: BatchFacts

    def check(self, other: NodeReport) -> None:
        """Raise BadFile or BadInput, naming what differs, unless another machine writes the same bytes."""
        model = self.facts.model
        if (differs := differing_file(model, dict(self.files), dict(other.files))) is not None:
            raise BadFile(f"{other.host}: {differs}: copy the model of this machine ({self.host})")
        ours, theirs = _compared(self.facts), _compared(other.facts)
        for name, value in ours.items():
            if theirs[name] != value:
                raise BadInput(
                    f"{other.host}: {name} is {short(theirs[name])}, and {short(value)} here ({self.host}): "
                    f"answers would differ; {_ADVICE.get(name, 'make them the same')}"
                )


_ADVICE = {
    "version": "install the same version of pophood on all machines",
    "computed": "products in bfloat16 depend on the processor; --precision f32 or q8 does not",
    "adapters": "copy the adapters of this machine",
}


def report_of(model: LM | BatchModel) -> NodeReport:
    """Return the report of this machine about a model, whose weights need not be loaded."""
    batch = model if isinstance(model, BatchModel) else BatchModel(model, LineDefaults())
    return NodeReport(platform.node(), default_threads(), file_digests(batch.lm.path), batch.facts())


def examine(place: RayModel) -> NodeReport | str:
    """Return the report of this machine about its copy of a model, or what is wrong with that copy."""
    try:
        return report_of(place.load(weights=False))
    except PophoodError as error:
        return str(error)


def require_ray() -> None:
    """Raise NotFound, with the command that installs it, unless Ray Data is here."""
    missing = [name for name in ("ray", "pyarrow") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotFound(f"--ray needs {', '.join(missing)}, not installed here: pip install 'pophood[ray]'")


def _compared(facts: BatchFacts) -> dict[str, Any]:
    return {name: value for name, value in asdict(facts).items() if name not in _NOT_HERE}


def _unheard(_: str) -> None:
    """Take a line that the driver has printed already."""
