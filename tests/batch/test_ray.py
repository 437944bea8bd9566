"""`pophood batch --ray` with real clusters on this machine; `make test-full` installs Ray and runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

from pophood.cli.app import INTERRUPTED
from tests import needs, processes
from tests.tiny import tiny_folder

pytestmark = pytest.mark.full

# Starts a cluster of two nodes, then is `pophood` with the arguments that follow the first. That says what
# happens meanwhile: "kill N" kills the second node once N answers are written.
CLUSTER = """
import os, sys, threading, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from pathlib import Path
from ray.cluster_utils import Cluster
from pophood.cli import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1, env_vars={"POPHOOD_HOME": os.environ["SECOND_HOME"]})
cluster.wait_for_nodes()
kill, _, number = sys.argv.pop(1).partition(" ")

def watch():
    out = Path("out.jsonl")
    while not out.exists() or out.read_bytes().count(b"\\n") < int(number):
        time.sleep(0.01)
    cluster.remove_node(second, allow_graceful=False)

if kill == "kill":
    threading.Thread(target=watch, daemon=True).start()
sys.argv += ["--ray", cluster.address]
try:
    main()
finally:
    cluster.shutdown()
"""
LINES = [
    {"prompt": f"the cat {i}", "max_tokens": 20 + i % 90, "n": 1 + i % 2, "stop_ids": []}
    | ({"details": "top"} if i % 7 == 0 else {})
    for i in range(400)
]
MORE = [
    {"text": "a cat chased a dog", "score": True},
    {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "the cat"}},
    {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "the cat"}},
    {"temprature": 1},
]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Return a folder with a model and lines, and the answers that this machine alone gives."""
    needs.linux()
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: `make test-full` installs the extra [ray]")
    for name in ("home", "second"):
        tiny_folder(tmp_path / name / "models" / "me" / "tiny", "qwen2", n_positions=128)
    lines = [*LINES[:200], *MORE, *LINES[200:]]
    (tmp_path / "in.jsonl").write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8")
    with started(tmp_path, ["-m", "pophood", *words("alone.jsonl")]) as running:
        _, said = running.communicate()
    assert running.returncode == 1, said
    return tmp_path


def told(path: Path) -> bytes:
    """Return the answers without the time at which their run began, which OpenAI's lines state."""
    return re.sub(rb'"created": \d+', b'"created": 0', path.read_bytes())


def words(output: str = "out.jsonl") -> list[str]:
    return ["batch", "in.jsonl", "-o", output, "-m", "me/tiny", "--seed", "9", "--threads", "1"]


@contextmanager
def started(folder: Path, arguments: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start Python; at the end nothing that it started may be running."""
    places = {"POPHOOD_HOME": str(folder / "home"), "SECOND_HOME": str(folder / "second")}
    environment = os.environ | places | {"POPHOOD_OFFLINE": "1"} | more
    command = [sys.executable, *arguments]
    with processes.started(command, stdout=PIPE, stderr=PIPE, cwd=folder, env=environment) as running:
        yield running
        running.wait(processes.HANG_SECONDS)
        end = time.monotonic() + processes.DYING_SECONDS
        while (left := processes.descendants()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left, f"left running: {left}"


def test_a_cluster_of_this_machine(there: Path) -> None:
    with started(there, ["-m", "pophood", *words(), "--ray", "local", "--json"]) as running:
        out, said = running.communicate()
    assert running.returncode == 1, said
    assert told(there / "out.jsonl") == told(there / "alone.jsonl")
    summary = json.loads(out)
    assert (summary["lines"], summary["failed"]) == (len(LINES) + len(MORE), 2)
    assert summary["new_tokens"] > 20_000
    assert "Ray listens on every network" in said and "SHA-256 of every file" in said
    assert "Traceback" not in said and "Deprecat" not in said and "ray.data" not in said, said


def test_a_node_that_is_killed_loses_no_line(there: Path) -> None:
    with started(there, ["-c", CLUSTER, "kill 30", *words()]) as running:
        _, said = running.communicate()
    assert running.returncode == 1, said
    assert told(there / "out.jsonl") == told(there / "alone.jsonl")
    assert "is gone: others compute what it had not sent" in said and "a bug in" not in said, said


def test_ctrl_c_keeps_what_is_written_and_one_machine_goes_on(there: Path) -> None:
    out, whole = there / "out.jsonl", told(there / "alone.jsonl")
    with started(there, ["-m", "pophood", *words(), "--ray", "local"]) as running:
        while running.poll() is None and (not out.exists() or not out.stat().st_size):
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
    assert running.returncode == INTERRUPTED, said
    assert "; ended by Ctrl-C; the same command goes on" in said.splitlines()[-1]
    kept = out.read_bytes()
    assert whole.startswith(kept) and kept.endswith(b"\n") and len(kept) < len(whole)
    with started(there, ["-m", "pophood", *words()]) as running:
        running.communicate()
    assert told(out) == whole and out.read_bytes().startswith(kept)


def test_another_model_on_a_node_is_refused(there: Path) -> None:
    config = there / "second" / "models" / "me" / "tiny" / "config.json"
    config.write_text(config.read_text() + "\n")
    with started(there, ["-c", CLUSTER, "", *words()]) as running:
        _, said = running.communicate()
    assert running.returncode == 1
    assert "config.json of me/tiny: sha256 " in said.splitlines()[-1], said
    assert not (there / "out.jsonl").stat().st_size
    config.unlink()
    with started(there, ["-c", CLUSTER, "", *words()]) as running:
        _, said = running.communicate()
    assert running.returncode == 1 and "me/tiny" in said.splitlines()[-1], said


def test_no_cluster_is_one_line(there: Path) -> None:
    with started(there, ["-m", "pophood", *words(), "--ray", "auto"], RAY_TMPDIR=str(there)) as running:
        _, said = running.communicate()
    assert running.returncode == 1
    assert "--ray auto: no cluster (" in said.splitlines()[-1] and "ray start --head" in said
