"""transformers in bfloat16 as a side of `peers.py`."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch._inductor.config
import transformers
from _peer_protocol import serve


class Transformers:
    """`AutoModelForCausalLM` with torch's attention; `compiled` passes it through torch.compile."""

    def __init__(self, path: str, threads: int, compiled: bool = False) -> None:
        torch.set_num_threads(threads)
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16, attn_implementation="sdpa"
        ).eval()
        self.run = self.model
        if compiled:  # freezing packs the weights for oneDNN
            torch._inductor.config.freezing = True
            self.run = torch.compile(self.model, dynamic=True)
        self.facts: dict[str, Any] = {
            "version": f"{transformers.__version__}, torch {torch.__version__}",
            "precision": "bfloat16",
            "compiled": compiled,
        }

    @torch.inference_mode()
    def generate(self, ids: list[int], steps: int) -> tuple[list[int], list[float]]:
        """One pass over the prompt, whose last row alone meets the output matrix, then a token at a time."""
        tokens: list[int] = []
        moments: list[float] = []
        cache = transformers.DynamicCache(config=self.model.config)
        row = torch.tensor([ids])
        for _ in range(steps + 1):
            out = self.run(input_ids=row, past_key_values=cache, use_cache=True, logits_to_keep=1)
            row = out.logits[:, -1:].argmax(-1)
            tokens.append(int(row))
            moments.append(time.perf_counter())
        return tokens, moments


if __name__ == "__main__":
    serve(Transformers)
