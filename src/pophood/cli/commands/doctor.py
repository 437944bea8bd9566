"""`pophood doctor`: checks this machine, and on request proves that no data leaves it."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pophood import system
from pophood.cli.app import DONE, FAILED, INTERRUPTED, QUESTION
from pophood.cli.options.shared import ModelChoice, json_option, other_option, verb
from pophood.cli.terminal.console import Console, one_line
from pophood.cli.terminal.tables import count
from pophood.errors import PophoodError
from pophood.system import size_text

LIBRARIES = ("tokenizers", "jinja2", "click", "rich", "platformdirs", "markdown-it-py")
# The flags in /proc/cpuinfo that decide which kernels can run.
TELLING = frozenset(
    "sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 amx_int8 amx_bf16 "  # noqa: SIM905
    "asimd asimddp i8mm bf16 sve".split()
)
MEASURED = 1 << 28  # bytes: larger than every cache, yet read ten times in half a second
# Prefixes of audit events. "socket.__new__" is not an attempt: it only creates a socket.
GUARDED = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostby", "socket.getnameinfo", "socket.getservby",
    "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib.", "nntplib.", "webbrowser.",
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn",
)  # fmt: skip


@verb()
@other_option(
    "--prove-offline",
    is_flag=True,
    help="Run the demo with every connection forbidden, and list the attempts.",
)
@json_option
def doctor_command(console: Console, prove_offline: bool, as_json: bool) -> int:
    """Check this machine, and suggest what to fix.

    Example: pophood doctor
    """
    if prove_offline:
        return prove(console, as_json)
    facts = examine()
    console.result(facts, "\n".join(lines(facts)), as_json=as_json)
    return FAILED if "error" in facts["engine"] else DONE


def examine() -> dict[str, Any]:
    """Collect the facts for --json; sizes in bytes, bandwidth in bytes per second. Changes nothing.

    It takes about a second, mostly to measure the memory's bandwidth.
    """
    from pophood import hub

    engine, bandwidth = _engine()
    store = system.home() / "models"
    models = [
        {"name": model.name, "path": str(model.path), "bytes": model.size} for model in hub.list_models()
    ]
    choice = hub.default_choice()
    facts = {
        "python": platform.python_version(),
        "pophood": metadata.version("pophood"),
        "numpy": metadata.version("numpy"),
        "device": "CPU",
        "libraries": {name: _version(name) for name in LIBRARIES},
        "processor": system.processor_name(),
        "features": features(),
        "engine": engine,
        "cores": os.cpu_count() or 1,
        "threads": system.default_threads(),
        "memory_free": system.available_memory(),
        "read_bandwidth": bandwidth,
        "store": str(store),
        "store_writable": os.access(system.nearest_folder(store), os.W_OK),
        "disk_free": system.free_disk(store),
        "folders": [str(folder) for folder in system.model_folders()],
        "models": models,
        "default_model": choice.name if choice else None,
        "offline": system.offline(),
    }
    return facts | {"advice": advice(facts)}


def advice(facts: Mapping[str, Any]) -> list[str]:
    """Return advice, the most urgent first; each line names the command or the setting to use."""
    lines = []
    if "error" in facts["engine"]:
        lines.append(
            f"the engine cannot be loaded ({facts['engine']['error']}): build it with `pip install .`"
        )
    missing = [name for name, version in facts["libraries"].items() if version is None]
    if missing:
        lines.append(f"missing: {', '.join(missing)}: install with `pip install {' '.join(missing)}`")
    if not facts["store_writable"]:
        lines.append(f"{facts['store']} cannot be written: point POPHOOD_HOME to a folder of yours")
    if not facts["models"]:
        lines.append("no model is here: fetch one with `pophood pull gpt2` or `pophood pull smollm2`")
    if facts["memory_free"] < 10**9:
        lines.append(
            f"only {size_text(facts['memory_free'])} of memory is free: close programs before loading a model"
        )
    if facts["disk_free"] < 10**9:
        lines.append(
            f"only {size_text(facts['disk_free'])} of disk is free: remove a model with `pophood rm`"
        )
    if os.environ.get("POPHOOD_ISA"):
        lines.append(f"POPHOOD_ISA={os.environ['POPHOOD_ISA']} forces an instruction set: unset it for speed")
    if sys.stdout.encoding and not system.unicode_ok(sys.stdout):
        lines.append(
            f"this console uses {sys.stdout.encoding}: set PYTHONIOENCODING=utf-8 to see every character"
        )
    return lines


def features() -> list[str]:
    """Return the processor's flags that are in TELLING; empty if the system does not list flags."""
    for line in system.cpu_info():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return [feature for feature in words.split() if feature in TELLING]
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


def lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the report as lines of text; the first line has the form of the talk's."""
    libraries = ", ".join(f"{name} {version or 'MISSING'}" for name, version in facts["libraries"].items())
    engine, models, speed = facts["engine"], facts["models"], facts["read_bandwidth"]
    kernels = engine.get("error") or f"{engine['isa']} (can run: {', '.join(engine['instruction_sets'])})"
    bandwidth = "not measured" if speed is None else f"{speed / 1e9:.1f} GB/s"
    stored = f"{count(len(models), 'model')}, {size_text(sum(model['bytes'] for model in models))}"
    rows = [
        ("Libraries", libraries),
        ("Processor", facts["processor"]),
        ("Features", " ".join(facts["features"]) or "not listed by this system"),
        ("Engine", kernels),
        ("Threads", f"{facts['threads']} of {count(facts['cores'], 'logical core')}"),
        ("Memory free", size_text(facts["memory_free"])),
        ("Memory reads", f"{bandwidth} with {count(facts['threads'], 'thread')}"),
        ("Model store", f"{facts['store']} ({stored}; {size_text(facts['disk_free'])} free)"),
        ("Default model", facts["default_model"] or "none here"),
        ("Connections", "forbidden" if facts["offline"] else "only to download a model"),
    ]
    head = "Python {python} | pophood {pophood} | NumPy {numpy} | Device: {device}".format_map(facts)
    body = [f"{name:<14} {value}" for name, value in rows]
    todo = [f"To do: {line}" for line in facts["advice"]]
    return [head, *body, *(todo or [f"Nothing to do: ready. {try_it(models)}".rstrip()])]


def try_it(models: Sequence[Mapping[str, Any]]) -> str:
    """Return a command to try if the small chat model is on this machine, else ""."""
    if not any(model["name"] == "smollm2" for model in models):
        return ""
    return f'Try: pophood chat -m smollm2 "{QUESTION}" --greedy'


class Guard:
    """An audit hook that records and refuses every event that could send data out of this process.

    Python reports each connection, name look-up and child process to audit hooks before it happens (PEP 578),
    so an attempt is noticed even if its caller hides the error. The engine's C++ code links no socket calls.
    """

    def __init__(self) -> None:
        self.attempts: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(GUARDED):
            self.attempts.append(one_line(f"{event} {arguments!r}"[:300]))
            raise PophoodError(f"a connection was attempted while all are forbidden: {event}")


def prove(console: Console, as_json: bool) -> int:
    """Run the demo under the guard, print connection attempts and open sockets, and return 0 without any.

    Where the system lists the open files of a process, the sockets among them are counted.
    """
    from pophood.cli.commands.demo import show_demo

    guard, inherited = Guard(), open_sockets()
    sys.addaudithook(guard)  # a hook cannot be removed, so the process does nothing else
    os.environ["POPHOOD_OFFLINE"] = "1"
    choice = ModelChoice(offline=True)
    failure: PophoodError | None = None
    try:
        demo = show_demo(console, choice, silent=as_json)
    except PophoodError as error:
        failure = error
    else:
        if demo.interrupted:
            return INTERRUPTED
    at_end = open_sockets()
    sockets = None if at_end is None or inherited is None else len(at_end - inherited)
    attempts = guard.attempts
    known = "not listed by this system" if sockets is None else sockets or "none"
    text = "\n  ".join([f"Connections attempted: {len(attempts) or 'none'}", *attempts])
    facts = {"attempts": attempts, "open_sockets": sockets, "demo_ran": failure is None}
    console.result(facts, f"{text}\nSockets open at the end: {known}", as_json=as_json)
    if failure is not None:
        raise failure
    return 1 if attempts or sockets else 0


def open_sockets() -> set[str] | None:
    """Return the open sockets of this process; None if the system does not list open files."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return None
    targets = set()
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this listing is closed by now
            targets.add(str(entry.readlink()))
    return {name for name in targets if name.startswith("socket:")}
