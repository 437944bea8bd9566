"""From a new process to the tenth token, GPT-2 small F32 GGUF, and to the help text: seconds.

Bars: at most 4 times llama-cpp-python to the tenth token; `pophood --help` within 0.3 s.
Run: python benchmarks/start.py
"""

from __future__ import annotations

import os
import subprocess
import sys

from _models import gpt2_gguf
from _timing import interleaved, paired_ratio, report, timed, versions

PROMPT = "The capital of Spain is"
ROUNDS = 7
LLAMA = f"""
from llama_cpp import Llama
model = Llama({str(gpt2_gguf())!r}, n_ctx=1024, n_threads=2, verbose=False)
print(model({PROMPT!r}, max_tokens=10, temperature=0.0)["choices"][0]["text"])
"""


def process(*command: str) -> float:
    """Seconds that a command takes from start to end."""
    environment = os.environ | {"POPHOOD_OFFLINE": "1"}
    return timed(
        lambda: subprocess.run(
            command, check=True, capture_output=True, env=environment, stdin=subprocess.DEVNULL
        )
    )


def main() -> None:
    """Time all, interleaved."""
    pophood = [sys.executable, "-m", "pophood"]
    run = [*pophood, "run", "-m", str(gpt2_gguf()), "--greedy", "--max-tokens", "10", PROMPT]
    works = {
        "pophood run, 10 tokens": lambda: process(*run),
        "llama-cpp-python, 10 tokens": lambda: process(sys.executable, "-c", LLAMA),
        "pophood --help": lambda: process(*pophood, "--help"),
        "import pophood": lambda: process(sys.executable, "-c", "import pophood"),
        "python -c pass": lambda: process(sys.executable, "-c", "pass"),
    }
    figures = interleaved(works, ROUNDS)
    report(
        "start, GPT-2 small F32",
        "seconds",
        figures,
        times_llama_cpp=paired_ratio(figures, "pophood run, 10 tokens", "llama-cpp-python, 10 tokens"),
        bar="4 times llama-cpp-python; --help 0.3 s",
        peers=versions("llama-cpp-python"),
    )


if __name__ == "__main__":
    main()
