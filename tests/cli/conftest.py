"""Fixtures of the command-line tests: small random models on disk, and `pophood` as a user starts it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from pophood.cli.app import pophood
from tests import processes
from tests.tiny import tiny_folder, tiny_gguf


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished process: its exit code and what it wrote."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode("utf-8")

    @property
    def said(self) -> list[str]:
        """The lines of stderr."""
        return self.err.decode("utf-8").splitlines()


Program = Callable[..., Ended]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user with an empty home folder who forbids connections."""
    return {
        "POPHOOD_HOME": str(tmp_path / "home"),
        "POPHOOD_OFFLINE": "1",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "utf-8",
    }


@pytest.fixture
def program(tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return a function that runs `pophood` with arguments, stdin and extra environment in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
        result = CliRunner().invoke(pophood, arguments, input=stdin, env=settings | environment)
        return Ended(result.exit_code, result.stdout_bytes, result.stderr_bytes)

    return run


@pytest.fixture
def process(tmp_path: Path, settings: dict[str, str]) -> Program:
    """Return a function like `program` that runs `pophood` in a process of its own, with real streams."""

    def run(*arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
        done = processes.run(
            [sys.executable, "-m", "pophood", *arguments],
            input=stdin,
            capture_output=True,
            env=os.environ | settings | environment,
            cwd=tmp_path,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a completion model: a GPT-2 of two blocks with the whole vocabulary and 128 positions."""
    return tiny_folder(tmp_path_factory.mktemp("models") / "base", "gpt2")


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a chat model: a Qwen2 of two blocks as GGUF, with 256 positions."""
    path = tmp_path_factory.mktemp("models") / "talker.gguf"
    tiny_gguf(path, "qwen2")
    return path
