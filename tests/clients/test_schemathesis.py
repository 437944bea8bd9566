"""Requests that schemathesis draws from the OpenAPI description, right and wrong ones: 10,000 in all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environments import python_of
from tests.processes import run
from tests.serve.command import Command, command
from tests.serve.counting import server_errors, settled
from tests.serve.wire import request
from tests.tiny import tiny_folder

pytestmark = [pytest.mark.full, pytest.mark.clients]

WINDOW = 64  # an answer that fills it takes a moment
# Right by its schema is not yet right: `n` and `best_of` must agree, names and ids be those of the model.
# A body that is no JSON is refused (415) before anybody looks for a route (405).
LEFT_OUT = "positive_data_acceptance,unsupported_method"
RUNS = [("coverage", 1, 0, 2_000), *(("fuzzing", 150, seed, 1_000) for seed in range(8))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("schemathesis")
    with command(tiny_folder(folder / "tiny", "qwen2", n_positions=WINDOW), home=folder) as running:
        yield running


@pytest.mark.parametrize(("phase", "examples", "seed", "least"), RUNS)
def test_no_request_breaks_the_server_or_its_description(
    server: Command, tmp_path: Path, phase: str, examples: int, seed: int, least: int
) -> None:
    words = [python_of("schemathesis").parent / "st", "run", f"http://127.0.0.1:{server.port}/openapi.json"]
    words += ["--phases", phase, "--max-examples", str(examples), "--seed", str(seed), "--workers", "1"]
    words += ["--exclude-checks", LEFT_OUT, "--continue-on-failure", "--no-shrink"]
    words += ["--header", f"Authorization: Bearer {server.key}"]
    words += ["--report", "json", "--report-json-path", tmp_path / "report.json"]
    done = run(list(map(str, words)), capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    print(f"{phase}, seed {seed}: {report['test_cases']['generated']:,} cases, {report['valid_rates']}")
    assert report["complete"] and report["test_cases"]["generated"] >= least
    assert server_errors(settled(server)) == []
    assert request(server.port, "/health").status == 200
