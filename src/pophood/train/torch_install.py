"""Torch as an optional dependency (small: code that must not import torch imports this file).

On Linux the default build of torch brings gigabytes of CUDA, so the command given here installs the CPU
build.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys

from pophood.errors import NotFound

# How often a thread of GNU's OpenMP, which torch uses on Linux, checks whether the others are done before
# it sleeps. The default of 300,000 checks takes 15 ms. When another program occupies a core, the threads
# then burn each other's time, and a step took 15 times as long as with a single thread.
SPIN_COUNT = "1000"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def torch_command(platform: str = sys.platform, python: str = sys.executable) -> str:
    """Return the command that installs a CPU build of torch into this Python.

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
    """Raise NotFound, with the command that installs it, unless torch can be imported. Imports nothing."""
    if importlib.util.find_spec("torch") is None:
        raise NotFound(f"training needs torch, which is not installed; a build for CPUs: {torch_command()}")


def import_torch() -> None:
    """Import torch so that its waiting threads soon sleep; raises NotFound if it is not installed.

    OpenMP reads its environment variables when torch is imported. A value that the user has set is left
    alone.
    """
    require_torch()
    if "torch" not in sys.modules and not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    import torch  # noqa: F401
