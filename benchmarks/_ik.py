"""ik_llama.cpp's own benchmark program, run as a side of ours; its folder is in POPHOOD_PEER_IK.

It is built beside the project: `cmake -B build -DGGML_NATIVE=ON -DLLAMA_CURL=OFF`, targets llama-bench and
llama-quantize, and POPHOOD_PEER_IK=.../build/bin. It generates random tokens, so that it never chooses one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

PLACE = "POPHOOD_PEER_IK"
REPACKED = (0, 1)  # values of -rtr: whether weights are packed again when a model is loaded


def ik_folder() -> Path | None:
    """The folder of its programs, or None, with the reason printed."""
    place = os.environ.get(PLACE)
    if not place:
        print(f"ik_llama.cpp is left out: {PLACE} is not set (the folder with its llama-bench)")
        return None
    if not (Path(place) / "llama-bench").exists():
        print(f"ik_llama.cpp is left out: there is no llama-bench in {place}")
        return None
    return Path(place)


def ik_commit(path: Path) -> str | None:
    """The commit of the build, if it can compute this file; else None, with the reason printed."""
    if ik_folder() is None:
        return None
    try:
        return str(_bench(path, "-n", "0", "-p", "16")["build_commit"])
    except subprocess.CalledProcessError as error:
        said = [line for line in str(error.stderr).splitlines() if "ASSERT" in line or "error" in line]
        print(f"ik_llama.cpp is left out: it cannot run {path.name}: {(said or ['it ended early'])[0]}")
        return None


def ik_rate(
    path: Path, threads: int, repack: int, prompt: int, steps: int, options: tuple[str, ...] = ()
) -> float:
    """Tokens/s of `steps` tokens after a prompt, or of the prompt itself if there are no steps.

    A process of its own, which loads the file; -gp leaves the prompt out of the time.
    """
    work = ["-n", "0", "-p", "0", "-gp", f"{prompt},{steps}"] if steps else ["-n", "0", "-p", str(prompt)]
    row = _bench(path, "-t", str(threads), "-rtr", str(repack), *work, *options)
    assert (row["n_gen"], row["n_prompt"]) == (steps, prompt), row
    return float(row["avg_ts"])


def _bench(path: Path, *options: str) -> dict[str, Any]:
    """One run of llama-bench: its only row."""
    command = [f"{os.environ[PLACE]}/llama-bench", "-m", str(path), *options, "-r", "1", "-o", "json"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (row,) = json.loads(said[said.index("[") : said.rindex("]") + 1])
    assert isinstance(row, dict)
    return row
