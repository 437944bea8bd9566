"""From a new process to the tenth token, and to the help text: seconds, beside llama-cpp-python.

SmolLM2-135M in Q4_1, GPT-2 small's shape in Q8_0 and F32. Bars: at most 1.1 times llama-cpp-python to the
tenth token (F32: printed); `pophood --help` within 0.3 s. Ceiling: starting Python, and reading the file
once at read bandwidth. Python may keep its compiled modules (PYTHONDONTWRITEBYTECODE is not passed on): in
an editable checkout every process would compile a hundred files otherwise, which no installation does.
Run: python benchmarks/start.py [--rounds 5] [--no-amx]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from _amx import add_no_amx
from _models import gpt2_gguf
from _timing import Work, interleaved, judged, paired_ratio, report, timed, versions

from pophood import hub

PROMPT = "The capital of Spain is"
TOKENS = 10
BAR, AIM, HELP = 1.1, 0.8, 0.3
LLAMA = """
import sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, n_threads=2, verbose=False)
print(model(sys.argv[2], max_tokens=int(sys.argv[3]), temperature=0.0)["choices"][0]["text"])
"""


def process(*command: str) -> float:
    """Seconds that a command takes from start to end."""
    environment = dict(os.environ, POPHOOD_OFFLINE="1")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return timed(
        lambda: subprocess.run(
            command, check=True, capture_output=True, env=environment, stdin=subprocess.DEVNULL
        )
    )


def ours(path: Path, tokens: int = TOKENS) -> list[str]:
    """The command of pophood that generates greedily."""
    run = [sys.executable, "-m", "pophood", "run", "-m", str(path), "--greedy"]
    return [*run, "--max-tokens", str(tokens), PROMPT]


def theirs(path: Path, tokens: int = TOKENS) -> list[str]:
    """The shortest program with llama-cpp-python that does the same."""
    return [sys.executable, "-c", LLAMA, str(path), PROMPT, str(tokens)]


def main() -> None:
    """Time all, interleaved."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    add_no_amx(parser)
    options = parser.parse_args()
    files = {
        "SmolLM2 Q4_1": hub.locate("smollm2").path,
        "GPT-2 Q8_0": gpt2_gguf("Q8_0"),
        "GPT-2 F32": gpt2_gguf(),
    }
    works: dict[str, Work] = {}
    for name, path in files.items():
        works[f"pophood run, {name}"] = partial(process, *ours(path))
        works[f"llama-cpp-python, {name}"] = partial(process, *theirs(path))
    works |= {
        "pophood --help": partial(process, sys.executable, "-m", "pophood", "--help"),
        "import pophood": partial(process, sys.executable, "-c", "import pophood"),
        "python -c pass": partial(process, sys.executable, "-c", "pass"),
    }
    figures = interleaved(works, options.rounds)
    ratios = {
        name: paired_ratio(figures, f"pophood run, {name}", f"llama-cpp-python, {name}") for name in files
    }
    report(
        "start to the tenth token",
        "seconds",
        figures,
        bars={
            f"{name}, new process to tenth token against llama-cpp-python": judged(
                ratios[name], BAR, AIM, most=True
            )
            for name in ("SmolLM2 Q4_1", "GPT-2 Q8_0")
        },
        ratios=ratios,
        bar_of_help=HELP,
        peers=versions("llama-cpp-python"),
    )


if __name__ == "__main__":
    main()
