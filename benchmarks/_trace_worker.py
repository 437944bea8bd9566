"""One program of benchmarks/trace.py: loads GPT-2 small; traces a prompt at every line ("timed", "watched").

    python _trace_worker.py ours|usual|mapped FOLDER TOKENS on|off

"ours" is pophood. The others are TransformerLens, run by a Python that has it: "usual" goes the way of its
`from_pretrained_no_processing` (transformers loads, it converts); "mapped" is the leanest way that there is:
views into the mapped file stand for the weights, and nothing is copied. "on" and "off" is torch's gradient.
Answers are JSON lines: seconds of one trace.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

OURS_ONLY = ("*.ln_1", "*.ln_2", "final_norm")  # after gain and shift; TransformerLens has no hook there
LEFT_OUT = ("*.scores", "*.pattern", "*.result", "logits")
THREADS = 2


def back_memory() -> None:
    """Write and free a gigabyte.

    A virtual machine's host takes freed pages back after a second or two and is slow to give them again (up
    to 1.6 s for a trace), which says nothing about who asks for them next.
    """
    np.full(1 << 28, 1.0, np.float32)


def prompt(tokens: int) -> list[int]:
    """Return random ids, equal for every side."""
    ids: list[int] = np.random.default_rng(0).integers(0, 50_257, tokens).tolist()
    return ids


def ours(folder: Path, tokens: int) -> Callable[[], object]:
    """A trace by pophood of the points that both have."""
    import pophood

    lm = pophood.load(folder, threads=THREADS)
    taps = ("*", *(f"!{name}" for name in (*OURS_ONLY, *LEFT_OUT)))
    ids = prompt(tokens)
    return lambda: lm.trace(ids, taps)


def lens(way: str, folder: Path, tokens: int, gradient: bool) -> Callable[[], object]:
    """Trace with TransformerLens: only the hooks that mean the same arrays, no logits."""
    import torch

    from pophood.model.bundle import open_weights
    from pophood.taps import alias, match_taps
    from tests.look.golden.write_transformer_lens import hooked

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(gradient)
    opened = open_weights(folder)
    if way == "usual":
        model = usual(folder)
    else:
        weights: dict[str, Any] = {name: opened.weights[name] for name in opened.weights}
        model = hooked(opened.config, weights, copied=False)
    model.requires_grad_(gradient)
    taps = ["*", *(f"!{name}" for name in (*OURS_ONLY, *LEFT_OUT))]
    wanted = {tap.name for tap in match_taps(opened.config, taps)}
    hooks = {name for name in model.hook_dict if alias(name) in wanted}
    assert {alias(name) for name in hooks} == wanted, wanted - {alias(name) for name in hooks}
    ids = torch.tensor([prompt(tokens)])
    return lambda: model.run_with_cache(ids, names_filter=lambda name: name in hooks, return_type=None)


def usual(folder: Path) -> Any:
    """Do what `HookedTransformer.from_pretrained_no_processing` does, without asking the hub."""
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    from transformers import AutoModelForCausalLM

    from pophood.model.bundle import open_weights
    from tests.look.golden.write_transformer_lens import lens_config

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = HookedTransformerConfig(**lens_config(open_weights(folder).config))
    state = convert_gpt2_weights(theirs, config)
    model = HookedTransformer(config, move_to_device=False)
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    del theirs, state
    return model.eval()


def main() -> None:
    """Load, then answer."""
    warnings.simplefilter("ignore")
    way, folder, tokens, gradient = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "on"
    work = ours(folder, tokens) if way == "ours" else lens(way, folder, tokens, gradient)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        if line.strip() == "timed":
            back_memory()
        start = time.perf_counter()
        kept = work()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds}), flush=True)
        del kept


if __name__ == "__main__":
    main()
