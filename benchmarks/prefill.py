"""Reading a prompt of 512 tokens, GPT-2 small, f32: tokens/s beside transformers and llama.cpp.

Ceiling: torch's (oneDNN's) best rate over the step's own matrix shapes. Bar: 0.5 times transformers.
Run: python benchmarks/prefill.py
"""

from __future__ import annotations

import time

import numpy as np
import torch
from _models import gpt2_folder
from _timing import interleaved, paired_ratio, report, timed, versions
from decode import llama_model, pophood_engine
from transformers import AutoModelForCausalLM

TOKENS = 512
ROUNDS = 5
SHAPES = {(768, 2304): 12, (768, 768): 12, (768, 3072): 12, (3072, 768): 12}  # inputs, outputs: how many


def gemm_rate() -> float:
    """FLOP/s of the step's own products, one after the other, by torch."""
    seconds = 0.0
    x = {k: torch.randn(TOKENS, k) for k in (768, 3072)}
    for (k, n), count in SHAPES.items():
        weights = [torch.randn(n, k) for _ in range(3)]
        seconds += count * min(
            timed(lambda w=w, k=k: torch.nn.functional.linear(x[k], w)) for w in weights * 2
        )
    return flops() / seconds


def flops() -> float:
    """Count the operations of all products of one prefill."""
    return sum(2.0 * TOKENS * k * n * count for (k, n), count in SHAPES.items())


def main(threads: int = 2) -> None:
    """Time all three, interleaved."""
    torch.set_num_threads(threads)
    engine, peer = pophood_engine(threads), llama_model(threads)
    model = AutoModelForCausalLM.from_pretrained(gpt2_folder(), dtype=torch.float32).eval()
    ids = np.random.default_rng(0).integers(0, 50_257, TOKENS).tolist()
    tensor = torch.tensor([ids])

    def ours() -> float:
        with engine.sequence() as sequence:
            return TOKENS / timed(lambda: engine.logits([(sequence, ids)]))

    def reference() -> float:
        with torch.no_grad():
            return TOKENS / timed(lambda: model(tensor, use_cache=True, logits_to_keep=1))

    def llama_cpp() -> float:
        peer.reset()
        start = time.perf_counter()
        peer.eval(ids)
        return TOKENS / (time.perf_counter() - start)

    works = {
        "pophood f32": ours,
        "transformers f32": reference,
        "llama.cpp F32": llama_cpp,
        "ceiling (torch's GEMM rate)": lambda: gemm_rate() / flops() * TOKENS,
    }
    figures = interleaved(works, ROUNDS)
    report(
        "prefill of 512, f32, GPT-2 small",
        "tokens/s",
        figures,
        threads=threads,
        isa=engine.isa,
        times_transformers=paired_ratio(figures, "pophood f32", "transformers f32"),
        times_llama_cpp=paired_ratio(figures, "pophood f32", "llama.cpp F32"),
        share_of_ceiling=paired_ratio(figures, "pophood f32", "ceiling (torch's GEMM rate)"),
        bar="0.5 times transformers",
        peers=versions("transformers", "torch", "llama-cpp-python"),
    )


if __name__ == "__main__":
    main()
