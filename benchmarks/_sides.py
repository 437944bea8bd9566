"""Sides of a benchmark, each a process of its own that answers lines of JSON, and what they both read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _models import KEPT, ROOT
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pophood.text.tokenizer import Tokenizer

TEXT = ROOT / "tests" / "data" / "tinyshakespeare" / "first-120000.txt"
SEED_TASKS = ROOT / "tests" / "data" / "seed_tasks" / "seed-tasks.jsonl"
Ids = NDArray[np.int64]


class Side:
    """One process: it says a line when it is ready, then a line for every line that it gets.

    `environment` is added to that of this process; `words` stand before the facts on its command line.
    """

    def __init__(
        self,
        worker: str,
        environment: Mapping[str, str] | None = None,
        *,
        python: Path | str = sys.executable,
        words: Sequence[str] = (),
        **facts: Any,
    ) -> None:
        command = [str(python), str(Path(__file__).with_name(worker)), *words, json.dumps(facts)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environment or {}),
        )
        self.ready = self.answer()

    def ask(self, **what: Any) -> dict[str, Any]:
        """One turn, and what it gave."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that it says."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                said: dict[str, Any] = json.loads(line)
                return said
        sys.exit("a side of the benchmark has ended: its words are above")

    def turn(self, prompt: int, steps: int) -> Callable[[], float]:
        """One turn of `_speed_worker.py`, to be called as often as it is timed: tokens/s."""
        return lambda: float(self.ask(prompt=prompt, steps=steps)["rate"])

    def end(self) -> None:
        """No more turns."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def say(**what: Any) -> None:
    """A worker's answer."""
    print(json.dumps(what), flush=True)


def stretches(tokenizer: Tokenizer, text: Path, length: int) -> Ids:
    """A text as rows of `length` + 1 ids, each beginning with the last id of the one before."""
    ids = np.array(tokenizer.encode(text.read_text(encoding="utf-8"), add_start=False), np.int64)
    count = (len(ids) - 1) // length
    if count < 2:
        sys.exit(f"{text} has {len(ids)} tokens, which is not two rows of {length}: take a longer text")
    return np.stack([ids[i * length : (i + 1) * length + 1] for i in range(count)])


def gpt2_at_init(small: bool = False) -> Path:
    """A folder of GPT-2 small (else of a tiny shape) as transformers initialises it, without dropout."""
    path = KEPT / ("gpt2-init-tiny" if small else "gpt2-init")
    if not (path / "model.safetensors").exists():
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        from tests.tiny_vocabulary import write_tokenizer

        torch.manual_seed(0)
        shape = {"n_layer": 2, "n_head": 4, "n_embd": 64} if small else {}
        model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **shape))
        path.mkdir(parents=True, exist_ok=True)
        write_tokenizer(path, "gpt2", model.config.vocab_size)
        model.save_pretrained(path)
    return path


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct in float32, as pophood's export writes and proves it."""
    path = KEPT / "smollm2-folder"
    if not (path / "model.safetensors").exists():
        from pophood.export.job import export_model
        from pophood.hub import locate
        from pophood.model.bundle import open_bundle

        export_model(open_bundle(locate("smollm2").path), path, "f32")
    return path
