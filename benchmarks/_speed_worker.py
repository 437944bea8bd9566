"""One side of the comparisons of speed: pophood or llama.cpp with one file, timed in its own process.

Every turn names its work: `prompt` tokens are read, then `steps` greedy tokens are generated one by one. With
steps it answers their tokens/s, the first one not counted, since it comes from the prompt; with 0 steps the
tokens/s of the prompt. pophood is driven through `LM.stream`, llama.cpp through `Llama.generate`, with its
defaults or with flash attention.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from _sides import say

CONTEXT = 1024
VOCABULARY_USED = 20_000  # ids that every model of the benchmarks has


def prompt_of(length: int, turn: int) -> list[int]:
    """Token ids; each turn begins with another one, so that nothing of the last turn is reused."""
    return [100 + (turn + i) % VOCABULARY_USED for i in range(length)]


def adapter_of(lm: Any, rank: int) -> Any:
    """A random adapter of every matrix in the blocks."""
    from pophood.adapters.adapter import Adapter
    from pophood.config import tensor_shapes

    rng = np.random.default_rng(8)
    targets = {}
    for name, shape in tensor_shapes(lm.config).items():
        if name.startswith("blocks.") and len(shape) == 2:
            a = rng.standard_normal((rank, shape[1]), np.float32) / np.float32(shape[1] ** 0.5)
            b = rng.standard_normal((shape[0], rank), np.float32) * np.float32(0.01)
            targets[name.removesuffix(".weight")] = (a, b)
    return Adapter("random", rank, rank, 1.0, targets)


def parameters_of_blocks(config: Any) -> int:
    """Values of the matrices that every token of a prompt is multiplied with."""
    from pophood.config import tensor_shapes

    shapes = tensor_shapes(config).items()
    return sum(
        shape[0] * shape[1] for name, shape in shapes if name.startswith("blocks.") and len(shape) == 2
    )


class Ours:
    """pophood, as a program that uses the library runs it."""

    def __init__(self, path: str, precision: str, threads: int | None, adapter: int) -> None:
        import pophood
        from pophood.system import peak_memory

        begin = time.perf_counter()
        self.lm = pophood.load(path, precision=precision, threads=threads, context=CONTEXT)
        loaded = time.perf_counter() - begin
        chosen = [adapter_of(self.lm, adapter)] if adapter else []
        self.lm.use_adapters(chosen)
        engine = self.lm.engine
        self.facts: dict[str, Any] = {
            "isa": engine.isa,
            "threads": engine.threads,
            "load_seconds": loaded,
            "peak_memory": peak_memory(),
            "weight_bytes": engine.weight_bytes,
            "adapter_bytes": sum(4 * one.n_params for one in chosen),
            "operations": 2 * parameters_of_blocks(self.lm.config),
        }

    def turn(self, prompt: list[int], steps: int) -> float:
        """Tokens/s of one turn."""
        begin = time.perf_counter()
        run = self.lm.stream(prompt, max_tokens=steps + 1, temperature=0, stop_ids=())
        next(run)
        first = time.perf_counter()
        assert run.reused == 0
        count = sum(1 for _ in run)
        assert count == steps
        return steps / (time.perf_counter() - first) if steps else len(prompt) / (first - begin)


class Theirs:
    """llama.cpp, as a program that uses llama-cpp-python runs it."""

    def __init__(self, path: str, threads: int, flash: bool) -> None:
        from llama_cpp import Llama, __version__, llama_print_system_info

        self.model: Any = Llama(
            path,
            n_ctx=CONTEXT,
            n_batch=512,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=flash,
            verbose=False,
        )
        self.facts = {"version": __version__, "system": llama_print_system_info().decode()}

    def turn(self, prompt: list[int], steps: int) -> float:
        """Tokens/s of one turn."""
        self.model.reset()
        begin = time.perf_counter()
        if not steps:
            self.model.eval(prompt)
            return len(prompt) / (time.perf_counter() - begin)
        tokens = self.model.generate(prompt, temp=0.0, repeat_penalty=1.0)
        next(tokens)
        first = time.perf_counter()
        for _ in range(steps):
            next(tokens)
        seconds = time.perf_counter() - first
        tokens.close()
        return steps / seconds


def main() -> None:
    """Serve one side."""
    said = json.loads(sys.argv[1])
    if said["side"] == "pophood":
        side: Any = Ours(said["path"], said.get("precision", "auto"), said["threads"], said.get("adapter", 0))
    else:
        side = Theirs(said["path"], said["threads"], said.get("flash", False))
    say(**side.facts)
    for turn, line in enumerate(sys.stdin):
        what = json.loads(line)
        say(rate=side.turn(prompt_of(what["prompt"], turn), what["steps"]))


if __name__ == "__main__":
    main()
