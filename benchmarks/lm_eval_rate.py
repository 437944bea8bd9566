"""lm-eval's `local-completions` against `pophood serve` and llama-cpp-python's server: items per second.

SmolLM2 in Q8_0, the three tasks of tests/clients (two of multiple choice, one of log-likelihoods). Our
server tokenizes for lm-eval and gets token ids, eight requests at a time; llama-cpp-python's gets texts,
one at a time as it computes them, with `logits_all`, and the tokenizer of `pophood export`. An item is
one question with all its answers; the time is lm-eval's own, from its start to its last score. Bar: 2.5
times. Environments: POPHOOD_PEER_LM_EVAL is a Python with lm-eval[api] and transformers,
POPHOOD_PEER_LLAMA_SERVER one with llama-cpp-python[server].
Run: python benchmarks/lm_eval_rate.py [--items 20] [--rounds 3] [--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _amx import add_no_amx
from _models import KEPT, quantised_gguf, smollm2_gguf
from _servers import Served, pophood_server
from _timing import interleaved, judged, paired_ratio, report

from pophood.export.job import export_model
from pophood.model.bundle import open_bundle
from tests.clients.lm_eval_tasks import write_tasks

WINDOW = 2048
OURS, PEER = "pophood serve", "llama-cpp-python's server"
Options = dict[str, object]


def llama_server(path: Path, threads: int) -> Served:
    """llama-cpp-python's server, which keeps the logits of every token of a prompt."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [os.environ["POPHOOD_PEER_LLAMA_SERVER"], "-m", "llama_cpp.server", "--model", str(path)]
    command += ["--port", str(port), "--n_ctx", str(WINDOW), "--logits_all", "true"]
    command += ["--n_threads", str(threads), "--n_threads_batch", str(threads)]
    return Served(command, port, health="/v1/models")


def items_per_second(folder: Path, tasks: Sequence[str], items: int, key: str, given: Options) -> float:
    """Let lm-eval run the tasks; return the rate."""
    with tempfile.TemporaryDirectory() as place:
        command = [os.environ["POPHOOD_PEER_LM_EVAL"], "-m", "lm_eval", "run", "--model", "local-completions"]
        command += ["--tasks", ",".join(tasks), "--include_path", str(folder), "--output_path", place]
        command += ["--model_args", ",".join(f"{name}={value}" for name, value in given.items())]
        variables = {"OPENAI_API_KEY": key, "HF_HUB_OFFLINE": "1", "HF_HOME": f"{place}/home"}
        ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"lm-eval ended with {ended.returncode}: {ended.stderr[-3000:]}")
        (found,) = Path(place).rglob("results_*.json")
        told = json.loads(found.read_text(encoding="utf-8"))
    print({task: told["results"][task] for task in tasks}, flush=True)
    return len(tasks) * items / float(told["total_evaluation_time_seconds"])


def tokenizer_folder() -> Path:
    """SmolLM2 as `pophood export` writes it, for the peer's client."""
    path = KEPT / "smollm2-exported"
    if not path.exists():
        export_model(open_bundle(smollm2_gguf()), path, "f16")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the two servers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=20, help="of each task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args(arguments)
    path = quantised_gguf(smollm2_gguf(), "Q8_0")
    ours = pophood_server(path, options.threads, context=WINDOW)
    theirs = llama_server(path, options.threads)
    common: Options = {"max_length": WINDOW}
    sides: dict[str, Options] = {
        OURS: common
        | {
            "model": ours.facts["model"],
            "base_url": f"{ours.facts['base_url']}/completions",
            "tokenizer_backend": "remote",
            "auth_token": ours.facts["key"],
            "num_concurrent": 8,
        },
        PEER: common
        | {
            "model": path,
            "base_url": f"http://127.0.0.1:{theirs.facts['port']}/v1/completions",
            "tokenizer_backend": "huggingface",
            "tokenizer": tokenizer_folder(),
            "tokenized_requests": False,
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        tasks = write_tasks(Path(folder), options.items)
        rate = functools.partial(items_per_second, Path(folder), tasks, options.items)
        works = {
            name: functools.partial(rate, str(ours.facts["key"]), given) for name, given in sides.items()
        }
        figures = interleaved(works, options.rounds, warmup=0)
    bars = {"items per second of lm-eval": judged(paired_ratio(figures, OURS, PEER), 2.5, 5)}
    for server in (ours, theirs):
        server.end()
    report("lm-eval against a server", "items/s", figures, bars=bars, items=options.items)


if __name__ == "__main__":
    main()
