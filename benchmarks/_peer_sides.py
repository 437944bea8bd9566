"""The sides of `peers.py`: which engines there are, their settings, how they convert a model, how they start.

An engine of another environment runs with that environment's Python, named by a variable such as
POPHOOD_PEER_OPENVINO; one whose variable is not set is left out, and so is one that cannot convert a model.
docs/peers.md says how the environments are made.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _models import KEPT
from _peer_models import Model
from _sides import Side

Command = Callable[[Path, Path, Path], list[str]]  # Python, folder of the model, output -> command
STOPPABLE = hasattr(signal, "SIGSTOP")


def _for_ctranslate2(python: Path, folder: Path, output: Path) -> list[str]:
    converter = "from ctranslate2.converters.transformers import main; main()"
    options = ["--model", str(folder), "--output_dir", str(output), "--quantization", "int8"]
    return [str(python), "-c", converter, *options]


def _for_openvino(python: Path, folder: Path, output: Path) -> list[str]:
    exporter = "from optimum.commands.optimum_cli import main; main()"
    task = ["--task", "text-generation-with-past", "--weight-format", "int8"]
    return [str(python), "-c", exporter, "export", "openvino", "--model", str(folder), *task, str(output)]


def _for_onnxruntime(python: Path, folder: Path, output: Path) -> list[str]:
    """Blocks of 4 bits with products in 8, the output matrix in 8 bits, logits of the last token only.

    With an output matrix of 4 bits, which is the default, SmolLM2 repeats one token.
    """
    builder = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(folder), "-o", str(output)]
    extra = ["--extra_options", "algo_config=rtn_last", "accuracy_level=4", "prune_lm_head=true"]
    return [*builder, "-p", "int4", "-e", "cpu", "-c", str(output.with_suffix(".cache")), *extra]


@dataclass(frozen=True)
class Engine:
    """An engine: its process, and the settings among which the faster one counts, each as a side.

    `precision` is a key of `Model.kinds`. `variable` names the environment's Python; "" is this one, and then
    the engine reads the model's GGUF file. `convert` makes what it reads from the folder; without it, it
    reads the folder itself. `ggml`: it is built on that library, and has bars of its own in quantized.py.
    """

    name: str
    precision: str
    worker: tuple[str, ...]
    variable: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    convert: Command | None = None
    ggml: bool = False

    @property
    def title(self) -> str:
        """Name and precision."""
        return f"{self.name} {self.precision}"


OURS = "pophood"
GGUF = "_peer_gguf.py"
REST = {
    "": {},
    ", float32": {"INFERENCE_PRECISION_HINT": "f32"},
}  # by default bfloat16, if there are instructions
GROUPS = {  # of activations that share a scale; its default is 32
    f", groups of {size}{rest}": {"options": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(size)} | hint}
    for size in (64, 128)
    for rest, hint in REST.items()
}
FLASH = {"": {"flash": False}, ", flash attention": {"flash": True}}
ENGINES = {
    "pophood": [Engine(OURS, kind, (GGUF, "pophood")) for kind in ("int8", "int4", "bf16")],
    "llama.cpp": [
        Engine("llama.cpp", kind, (GGUF, "llama.cpp"), settings=FLASH, ggml=True) for kind in ("int8", "int4")
    ],
    "ik": [Engine("ik_llama.cpp", kind, (), ggml=True) for kind in ("int8", "int4")],
    "transformers": [
        Engine(
            "transformers",
            "bf16",
            ("_peer_transformers.py",),
            "POPHOOD_PEER_TRANSFORMERS",
            settings={"": {}, ", compiled": {"compiled": True}},
        )
    ],
    "ctranslate2": [
        Engine(
            "CTranslate2",
            "int8",
            ("_peer_ctranslate2.py",),
            "POPHOOD_PEER_CTRANSLATE2",
            convert=_for_ctranslate2,
        )
    ],
    "openvino": [
        Engine(
            "OpenVINO",
            "int8",
            ("_peer_openvino.py",),
            "POPHOOD_PEER_OPENVINO",
            settings=GROUPS,
            convert=_for_openvino,
        )
    ],
    "onnxruntime": [
        Engine(
            "ONNX Runtime",
            "int4",
            ("_peer_onnxruntime.py",),
            "POPHOOD_PEER_ONNXRUNTIME",
            convert=_for_onnxruntime,
        )
    ],
}


class PeerSide(Side):
    """A side that stands still, threads and all, except during its turns.

    `start_seconds` are those from a new process to the first token after a prompt of 16.
    """

    def __init__(self, engine: Engine, python: Path, path: Path, threads: int, settings: Any) -> None:
        begin = time.perf_counter()
        script, *words = engine.worker
        super().__init__(script, words=words, python=python, path=str(path), threads=threads, **settings)
        self.ask(prompt=16, steps=0)
        self.start_seconds = time.perf_counter() - begin

    def ask(self, **what: Any) -> dict[str, Any]:
        """One turn, awake."""
        self._signal("SIGCONT")
        said = super().ask(**what)
        self._signal("SIGSTOP")
        return said

    def end(self) -> None:
        """No more turns."""
        self._signal("SIGCONT")
        super().end()

    def _signal(self, name: str) -> None:
        if STOPPABLE:
            self.process.send_signal(getattr(signal, name))


def started(engine: Engine, key: str, model: Model, threads: int) -> dict[str, PeerSide]:
    """The sides of an engine by name, or {} with the reason printed."""
    place = os.environ.get(engine.variable) if engine.variable else sys.executable
    if not place:
        print(f"{engine.name} is left out: {engine.variable} is not set (the Python of its environment)")
        return {}
    python = Path(place)
    path = model.folder() if engine.variable else model.gguf(engine.precision)
    if engine.convert is not None:
        output = KEPT / f"{engine.worker[0].removesuffix('.py').strip('_')}-{key}-{engine.precision}"
        if not output.exists() and not _converted(engine, engine.convert(python, path, output), output):
            return {}
        path = output
    sides = {}
    for words, settings in engine.settings.items():
        try:
            sides[f"{engine.title}{words}"] = PeerSide(engine, python, path, threads, settings)
        except SystemExit:  # it ended, and said why
            if engine.name == OURS:
                raise
            print(f"{engine.title}{words} is left out: it cannot run {model.title}")
    return sides


def _converted(engine: Engine, command: list[str], output: Path) -> bool:
    """Run a conversion; what it said is kept beside the output."""
    log = output.with_suffix(".log")
    with log.open("wb") as file:
        failed = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if failed:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "")
        print(f"{engine.name} is left out: it cannot convert {output.name}: {said}")
        shutil.rmtree(output, ignore_errors=True)
    return not failed
