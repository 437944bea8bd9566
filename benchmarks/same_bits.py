"""Fingerprints of everything that pophood computes, to show that a change of its code changed no result.

    python benchmarks/same_bits.py record before.json     # at one commit
    python benchmarks/same_bits.py record after.json      # at another
    python benchmarks/same_bits.py compare before.json after.json

A fingerprint is the SHA-256 of an output: logits of every family (tests/tiny.py) and of smollm2, sampled
texts by seed, the numbers of every view, the files of short training runs, one of them stopped and resumed.
Everything but the logits is taken through the command line, which does not depend on the package's layout.
Both records must come from one machine, since training's bits depend on the instruction set.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "tinyshakespeare" / "first-120000.txt"
sys.path.insert(0, str(ROOT))
os.environ.setdefault("POPHOOD_HOME", str(ROOT / "build" / "test-home"))

TEXT = "The capital of Spain is Madrid. 中文 naïve 🙂 of\n\n"
SETTINGS: dict[str, list[str]] = {
    "greedy": ["--temperature", "0"],
    "plain": ["--seed", "1"],
    "filters": ["--seed", "2", "--top-k", "40", "--top-p", "0.9", "--min-p", "0.02"],
    "penalties": ["--seed", "3", "--repetition-penalty", "1.2", "--temperature", "1.1"],
    "batch": ["--seed", "4", "--samples", "3"],
}
VIEWS = (
    *("architecture", "parameters", "scale", "tokens", "embeddings", "positions", "before", "hidden", "norm"),
    *("residual", "dropout", "attention", "feedforward", "output", "next", "surprise", "lens"),
)
WITHOUT_TEXT = {"architecture", "parameters", "scale", "embeddings", "positions"}
TRAINING: dict[str, list[str]] = {
    "lora": ["--method", "lora"],
    "lora q8": ["--method", "lora", "--base", "q8", "--lora-dropout", "0.1"],
    "full": ["--method", "full", "--precision", "f32"],
    "last": ["--method", "last", "--last-blocks", "1"],
}


def digest(data: bytes | str) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def numbers_in(value: Any) -> Iterator[float]:
    """The numbers of a JSON value in order; its words may change."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, int | float):
        yield float(value)


def pophood(*arguments: str, cwd: Path | None = None) -> str:
    """The standard output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "pophood", *arguments],
        capture_output=True, text=True, cwd=cwd, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"pophood {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
    return done.stdout


def logits(model: str, precision: str) -> str:
    """Logits of all positions."""
    import pophood as library

    return digest(library.load(model, precision=precision).logits(TEXT).tobytes())


def text(options: list[str]) -> str:
    """The text that `run` prints."""
    return digest(pophood("run", TEXT, "-m", "smollm2", "-n", "24", *options))


def view(name: str) -> str:
    """The numbers of a view."""
    prompt = [] if name in WITHOUT_TEXT else [TEXT]
    answer = json.loads(pophood("look", name, *prompt, "-m", "smollm2", "--json"))
    return digest(json.dumps(list(numbers_in(answer))))


def weights_in(folder: Path) -> str:
    """The weights that a run wrote."""
    files = (file for file in sorted(folder.rglob("*.safetensors")) if "checkpoint" not in str(file))
    return digest(b"".join(file.read_bytes() for file in files))


def tuned(model: str, options: list[str], out: Path) -> str:
    """The weights after four steps."""
    sizes = ["--steps", "4", "--batch-size", "2", "--length", "48", "-q"]
    pophood("tune", str(DATA), "-m", model, "-o", str(out), *sizes, *options)
    return weights_in(out)


def resumed(model: str, out: Path) -> str:
    """The weights after a run that was interrupted on its way and then resumed."""
    common = ["tune", str(DATA), "-m", model, "-o", str(out)]
    sizes = ["--steps", "1000", "--batch-size", "2", "--length", "64"]
    command = [sys.executable, "-m", "pophood", *common, *sizes]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if re.match(r"step \d+ of 1,?000", line):
                run.terminate()  # a shell makes background processes ignore SIGINT
                break
        run.communicate()
    pophood(*common, "--resume")
    return weights_in(out)


def everything(scratch: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Every fingerprint: its name, and what computes it."""
    from tests.tiny import FAMILIES, tiny_folder

    models = {name: str(tiny_folder(scratch / name, name)) for name in FAMILIES}
    for name, model in {**models, "smollm2": "smollm2"}.items():
        for precision in ("auto", "f32"):
            yield f"logits {name} {precision}", partial(logits, model, precision)
    for name, options in SETTINGS.items():
        yield f"text {name}", partial(text, options)
    for name in VIEWS:
        yield f"view {name}", partial(view, name)
    for name, model in models.items():
        for method, options in TRAINING.items():
            yield f"tune {name} {method}", partial(tuned, model, options, scratch / f"{name}-{method}")
    yield "tune qwen3 resumed", partial(resumed, models["qwen3"], scratch / "resumed")


def record(file: Path) -> None:
    """Compute what the file does not have yet, and write it after each."""
    prints: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, compute in everything(Path(scratch)):
            if name not in prints:
                prints[name] = compute()
                print(f"{prints[name]}  {name}", flush=True)
                file.write_text(json.dumps(prints, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    """Record to a file, or compare two."""
    if len(arguments) == 2 and arguments[0] == "record":
        record(Path(arguments[1]))
        return 0
    if len(arguments) == 3 and arguments[0] == "compare":
        before, after = (json.loads(Path(name).read_text()) for name in arguments[1:])
        different = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
        print(f"{len(before)} fingerprints before, {len(after)} after")
        print(f"different: {', '.join(different) or 'none'}")
        return 1 if different else 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
