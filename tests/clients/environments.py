"""Environments with real clients of OpenAI's protocol: what one of them requires changes no other."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.processes import run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "clients"

PACKAGES = {  # the newest of each on 2026-12-01
    "openai2": ["openai==2.54.0"],
    "openai3": ["openai==3.57.0"],
    "llm": ["llm==0.36"],
    "lm_eval": ["lm-eval[api]==0.4.13"],
    "ollama": ["ollama==0.6.3"],
    "langchain": ["langchain-openai==1.7.4"],
    "schemathesis": ["schemathesis==4.32.5"],
}


def python_of(name: str) -> Path:
    """Return the interpreter of an environment, which is made at its first use (a minute, with a network)."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    done = folder / " ".join(PACKAGES[name])
    if not done.exists():
        run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        run([*pip, *PACKAGES[name]], check=True)
        done.touch()
    return python
