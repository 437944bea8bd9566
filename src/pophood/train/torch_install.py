"""Whether torch is here, the one line that brings it (on Linux plain torch means gigabytes of CUDA), and how
its threads are to wait for each other."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys

from pophood.errors import NotFound

# How often a thread of GNU's OpenMP, with which torch computes on Linux, looks whether the others are done
# before it sleeps. As it comes it looks 300,000 times, which is 15 ms: where another program has one of the
# cores, the threads burn each other's time, and a step took 15 times as long as with one thread.
SPINS = "1000"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def torch_command(platform: str = sys.platform, python: str = sys.executable) -> str:
    """The command that installs a CPU build of torch into this very Python.

    >>> torch_command("linux", "python3")
    'python3 -m pip install torch --index-url https://download.pytorch.org/whl/cpu'
    >>> torch_command("darwin", "python3")
    'python3 -m pip install torch'
    """
    words = [python or "python", "-m", "pip", "install", "torch"]
    if platform not in ("darwin", "win32"):  # elsewhere the default build is for CUDA
        words += ["--index-url", CPU_INDEX]
    return f'& "{python}" {" ".join(words[1:])}' if platform == "win32" else shlex.join(words)


def require_torch() -> None:
    """Raise NotFound, with the command that brings it, unless torch can be imported. Imports nothing.

    Torch reads how its threads wait when it is imported: that is settled here, unless the user has.
    """
    if "torch" in sys.modules:
        found = sys.modules["torch"] is not None
    else:
        if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
            os.environ["GOMP_SPINCOUNT"] = SPINS
        found = importlib.util.find_spec("torch") is not None
    if not found:
        raise NotFound(f"training needs torch, which is not installed; a build for CPUs: {torch_command()}")
