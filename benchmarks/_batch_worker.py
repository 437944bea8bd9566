"""One side of benchmarks/batch.py: several sequences that are continued together, timed in its own process.

Every turn names `sequences`, `prompt` and `steps`: distinct prompts are read, then `steps` greedy tokens of
each are generated. It answers the tokens/s of all together, each one's first token not counted. pophood runs
`generate_batch`, as `LM.batch` does; llama.cpp runs its batches (`llama_decode`) with the likeliest token of
each row, through llama-cpp-python's binding.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

import numpy as np
from _sides import say

CONTEXT = 4096  # positions of all sequences together
Prompts = list[list[int]]


def prompts_of(sequences: int, length: int, turn: int) -> Prompts:
    """Prompts of token ids that every model of the benchmarks has; they differ, and from turn to turn."""
    return [[100 + 97 * i + turn + j for j in range(length)] for i in range(sequences)]


class Ours:
    """pophood."""

    def __init__(self, path: str, threads: int) -> None:
        import pophood

        self.lm = pophood.load(path, threads=threads, context=512)
        self.facts = {"isa": self.lm.engine.isa, "weight_bytes": self.lm.engine.weight_bytes}

    def turn(self, prompts: Prompts, steps: int) -> float:
        """Tokens/s of one turn."""
        from pophood.generate import GenerateSettings, generate_batch
        from pophood.sampling import SamplingSettings

        settings = GenerateSettings(
            sampling=SamplingSettings(temperature=0.0), max_tokens=steps + 1, stop_ids=()
        )
        run = generate_batch(self.lm.engine, self.lm.bundle.tokenizer, prompts, settings)
        for _ in prompts:
            next(run)
        begin = time.perf_counter()
        count = sum(1 for _ in run)
        assert count == steps * len(prompts)
        return count / (time.perf_counter() - begin)


class Theirs:
    """llama.cpp with as many sequences as are asked for, each with a part of the context."""

    def __init__(self, path: str, threads: int, flash: bool) -> None:
        import llama_cpp

        self.api: Any = llama_cpp
        self.api.llama_backend_init()
        self.silent = llama_cpp.llama_log_callback(lambda *_: None)
        self.api.llama_log_set(self.silent, ctypes.c_void_p(0))
        self.model = self.api.llama_model_load_from_file(path.encode(), self.api.llama_model_default_params())
        options = self.api.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = CONTEXT, 512, 512
        options.n_seq_max, options.n_threads, options.n_threads_batch = 8, threads, threads
        options.flash_attn_type = (
            self.api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else self.api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.context = self.api.llama_init_from_model(self.model, options)
        assert self.model and self.context
        self.vocabulary = int(self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model)))
        self.batch = self.api.llama_batch_init(512, 0, 1)
        self.facts = {"version": llama_cpp.__version__}

    def turn(self, prompts: Prompts, steps: int) -> float:
        """Tokens/s of one turn."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        length = len(prompts[0])
        rows = [
            (token, at, i, at == length - 1) for i, ids in enumerate(prompts) for at, token in enumerate(ids)
        ]
        tokens = self.step(rows)
        begin = time.perf_counter()
        for position in range(length, length + steps):
            tokens = self.step([(token, position, i, True) for i, token in enumerate(tokens)])
        return steps * len(prompts) / (time.perf_counter() - begin)

    def step(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Decode rows (token, position, sequence, output wanted); return the likeliest token of each."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, output) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, output
        assert self.api.llama_decode(self.context, batch) == 0
        wanted = [i for i, row in enumerate(rows) if row[3]]
        pointers = [self.api.llama_get_logits_ith(self.context, i) for i in wanted]
        return [int(np.ctypeslib.as_array(one, (self.vocabulary,)).argmax()) for one in pointers]


def main() -> None:
    """Serve one side."""
    said = json.loads(sys.argv[1])
    if said["side"] == "pophood":
        side: Any = Ours(said["path"], said["threads"])
    else:
        side = Theirs(said["path"], said["threads"], said["flash"])
    say(**side.facts)
    for turn, line in enumerate(sys.stdin):
        what = json.loads(line)
        say(rate=side.turn(prompts_of(what["sequences"], what["prompt"], turn), what["steps"]))


if __name__ == "__main__":
    main()
