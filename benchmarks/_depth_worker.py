"""One side of depth.py: pophood or llama.cpp with SmolLM2 and one type of keys and values, in a process.

It first reads a prompt as long as the greatest depth. Every turn names a depth and a number of steps: so many
tokens are appended one by one after that many positions, none of them chosen, and it answers tokens/s.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from _sides import say
from _speed_worker import prompt_of

WINDOW = 8192


class Ours:
    """pophood's engine: one call for every token, with the likeliest next one."""

    def __init__(self, path: str, kv: str, threads: int, depth: int) -> None:
        import pophood
        from pophood.model.memory import head_bytes

        self.engine = pophood.load(path, threads=threads, kv=kv).engine
        config = self.engine.config
        per_position = config.n_layer * config.n_kv_head * 2 * head_bytes(config.head_dim, kv)
        self.sequence = self.engine.new_sequence()
        begin = time.perf_counter()
        self.engine.forward([(self.sequence, prompt_of(depth, 0))], output="none")
        seconds = time.perf_counter() - begin
        facts = {"isa": self.engine.isa, "kv_bytes": per_position * depth, "prefill": depth / seconds}
        self.facts: dict[str, Any] = facts

    def turn(self, depth: int, steps: int) -> float:
        """Tokens/s at a depth; the sequence is as before at the end."""
        whole, self.sequence = self.sequence, self.engine.fork(self.sequence)
        self.engine.truncate(self.sequence, depth)
        begin = time.perf_counter()
        for token in prompt_of(steps, 7):
            self.engine.summary([(self.sequence, [token])], k=1)
        seconds = time.perf_counter() - begin
        self.engine.drop(self.sequence)
        self.sequence = whole
        return steps / seconds


class Theirs:
    """llama.cpp's decode through llama-cpp-python."""

    def __init__(self, path: str, kv: str, threads: int, depth: int, flash: bool) -> None:
        import llama_cpp

        kinds = {"f16": llama_cpp.GGML_TYPE_F16, "q8": llama_cpp.GGML_TYPE_Q8_0}
        self.model = llama_cpp.Llama(
            path,
            n_ctx=WINDOW,
            n_batch=512,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=flash,
            type_k=kinds[kv],
            type_v=kinds[kv],
            verbose=False,
        )
        begin = time.perf_counter()
        self.model.eval(prompt_of(depth, 0))
        seconds = time.perf_counter() - begin
        self.facts: dict[str, Any] = {"version": llama_cpp.__version__, "prefill": depth / seconds}

    def turn(self, depth: int, steps: int) -> float:
        """Tokens/s at a depth; later positions are overwritten, earlier ones stay."""
        whole, self.model.n_tokens = self.model.n_tokens, depth
        begin = time.perf_counter()
        for token in prompt_of(steps, 7):
            self.model.eval([token])
        seconds = time.perf_counter() - begin
        self.model.n_tokens = min(whole, depth)
        return steps / seconds


def main() -> None:
    """Serve one side."""
    said = json.loads(sys.argv[1])
    side = {"pophood": Ours, "llama.cpp": Theirs}[said.pop("side")](**said)  # type: ignore[operator]
    say(**side.facts)
    for line in sys.stdin:
        say(rate=side.turn(**json.loads(line)))


if __name__ == "__main__":
    main()
