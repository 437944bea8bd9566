"""The facts that `doctor` reports: versions, processor, memory, models, and advice."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pophood import system
from pophood.cli.screens.welcome import QUESTION
from pophood.cli.terminal.tables import count
from pophood.system import size_text

LIBRARIES = ("tokenizers", "jinja2", "click", "rich", "platformdirs")
# The flags in /proc/cpuinfo that decide which kernels can run.
TELLING = frozenset(
    "sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 amx_int8 amx_bf16 "  # noqa: SIM905
    "asimd asimddp i8mm bf16 sve".split()
)
MEASURED = 1 << 28  # bytes: larger than every cache, yet read ten times in half a second


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts about this machine; sizes in bytes, bandwidth in bytes per second."""

    python: str
    pophood: str
    numpy: str
    device: str
    libraries: dict[str, str | None]
    processor: str
    features: list[str]
    engine: dict[str, Any]  # instruction_sets, isa, or the error that kept the engine from loading
    cores: int
    threads: int
    memory_free: int
    read_bandwidth: float | None
    store: str
    store_writable: bool
    disk_free: int
    folders: list[str]
    models: list[dict[str, Any]]
    default_model: str | None
    offline: bool
    advice: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as a dictionary for --json."""
        return asdict(self)


def examine() -> Machine:
    """Collect the facts. Takes about a second, mostly to measure memory bandwidth, and changes nothing."""
    from pophood import hub

    engine, bandwidth = _engine()
    threads = system.default_threads()
    store = system.home() / "models"
    models = [
        {"name": model.name, "path": str(model.path), "bytes": model.size} for model in hub.list_models()
    ]
    choice = hub.default_choice()
    found = Machine(
        python=platform.python_version(),
        pophood=metadata.version("pophood"),
        numpy=metadata.version("numpy"),
        device="CPU",
        libraries={name: _version(name) for name in LIBRARIES},
        processor=processor(),
        features=features(),
        engine=engine,
        cores=os.cpu_count() or 1,
        threads=threads,
        memory_free=system.available_memory(),
        read_bandwidth=bandwidth,
        store=str(store),
        store_writable=_writable(store),
        disk_free=system.free_disk(store),
        folders=[str(folder) for folder in system.model_folders()],
        models=models,
        default_model=choice.name if choice else None,
        offline=system.offline(),
        advice=[],
    )
    found.advice.extend(advice(found))
    return found


def advice(found: Machine) -> list[str]:
    """Return advice, the most urgent first; each line names the command or the setting to use."""
    lines = []
    if "error" in found.engine:
        lines.append(f"the engine cannot be loaded ({found.engine['error']}): build it with `pip install .`")
    missing = [name for name, version in found.libraries.items() if version is None]
    if missing:
        lines.append(f"missing: {', '.join(missing)}: install with `pip install {' '.join(missing)}`")
    if not found.store_writable:
        lines.append(f"{found.store} cannot be written: point POPHOOD_HOME to a folder of yours")
    if not found.models:
        lines.append("no model is here: fetch one with `pophood pull gpt2` or `pophood pull smollm2`")
    if found.memory_free < 10**9:
        lines.append(
            f"only {size_text(found.memory_free)} of memory is free: close programs before loading a model"
        )
    if found.disk_free < 10**9:
        lines.append(f"only {size_text(found.disk_free)} of disk is free: remove a model with `pophood rm`")
    if os.environ.get("POPHOOD_ISA"):
        lines.append(f"POPHOOD_ISA={os.environ['POPHOOD_ISA']} forces an instruction set: unset it for speed")
    if sys.stdout.encoding and not system.unicode_ok(sys.stdout):
        lines.append(
            f"this console speaks {sys.stdout.encoding}: PYTHONIOENCODING=utf-8 shows every character"
        )
    return lines


def processor() -> str:
    """Return the processor's name as its maker writes it."""
    if sys.platform == "linux":
        for line in _cpuinfo():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def features() -> list[str]:
    """Return the processor's flags that are in TELLING; empty if the system does not list flags."""
    for line in _cpuinfo():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return [feature for feature in words.split() if feature in TELLING]
    return []


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _engine() -> tuple[dict[str, Any], float | None]:
    try:
        from pophood.model.engine import instruction_sets, read_bandwidth
    except ImportError as error:
        return {"error": str(error)}, None
    sets = instruction_sets()
    used = os.environ.get("POPHOOD_ISA") or sets[-1]
    return {"instruction_sets": sets, "isa": used}, read_bandwidth(system.default_threads(), MEASURED)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


def lines(found: Machine) -> list[str]:
    """Return the report as lines of text; the first line has the form of the talk's."""
    libraries = ", ".join(f"{name} {version or 'MISSING'}" for name, version in found.libraries.items())
    engine = (
        found.engine.get("error")
        or f"{found.engine['isa']} (can run: {', '.join(found.engine['instruction_sets'])})"
    )
    models = (
        f"{count(len(found.models), 'model')}, {size_text(sum(model['bytes'] for model in found.models))}"
    )
    bandwidth = "not measured" if found.read_bandwidth is None else f"{found.read_bandwidth / 1e9:.1f} GB/s"
    rows = [
        ("Libraries", libraries),
        ("Processor", found.processor),
        ("Features", " ".join(found.features) or "not listed by this system"),
        ("Engine", engine),
        ("Threads", f"{found.threads} of {count(found.cores, 'logical core')}"),
        ("Memory free", size_text(found.memory_free)),
        ("Memory reads", f"{bandwidth} with {count(found.threads, 'thread')}"),
        (
            "Model store",
            f"{found.store} ({models}; {size_text(found.disk_free)} free)",
        ),
        ("Default model", found.default_model or "none here"),
        ("Connections", "forbidden" if found.offline else "only to fetch a model"),
    ]
    head = f"Python {found.python} | pophood {found.pophood} | NumPy {found.numpy} | Device: {found.device}"
    body = [f"{name:<14} {value}" for name, value in rows]
    todo = [f"To do: {line}" for line in found.advice] or [
        f"Nothing to do: ready. {try_it(found.models)}".rstrip()
    ]
    return [head, *body, *todo]


def try_it(models: Sequence[Mapping[str, Any]]) -> str:
    """Return a command to try if the small chat model is on this machine, else ""."""
    if not any(model["name"] == "smollm2" for model in models):
        return ""
    return f'Try: pophood chat -m smollm2 "{QUESTION}" --greedy'
