"""pophood and llama.cpp as sides of `peers.py`, each with a GGUF file."""

from __future__ import annotations

import sys
import time
from typing import Any

from _peer_protocol import CONTEXT, serve


class Pophood:
    """pophood, as a program that uses the library runs it."""

    def __init__(self, path: str, threads: int, precision: str = "auto") -> None:
        import pophood

        self.lm = pophood.load(path, precision=precision, threads=threads, context=CONTEXT)
        self.facts: dict[str, Any] = {"version": pophood.__version__, "isa": self.lm.engine.isa}

    def generate(self, ids: list[int], steps: int) -> tuple[list[int], list[float]]:
        """Generate greedily from ids."""
        tokens: list[int] = []
        moments: list[float] = []
        run = self.lm.stream(ids, max_tokens=steps + 1, temperature=0, stop_ids=())
        for token in run:
            moments.append(time.perf_counter())
            tokens.append(token.id)
        assert run.reused == 0
        return tokens, moments


class LlamaCpp:
    """llama.cpp, as a program that uses llama-cpp-python runs it."""

    def __init__(self, path: str, threads: int, flash: bool = True) -> None:
        from llama_cpp import Llama, __version__

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
        self.facts: dict[str, Any] = {"version": __version__, "flash_attention": flash}

    def generate(self, ids: list[int], steps: int) -> tuple[list[int], list[float]]:
        """Generate greedily from ids."""
        tokens: list[int] = []
        moments: list[float] = []
        self.model.reset()
        run = self.model.generate(ids, temp=0.0, repeat_penalty=1.0)
        for _ in range(steps + 1):
            tokens.append(next(run))
            moments.append(time.perf_counter())
        run.close()
        return tokens, moments


if __name__ == "__main__":
    side = sys.argv.pop(1)
    serve({"pophood": Pophood, "llama.cpp": LlamaCpp}[side])
