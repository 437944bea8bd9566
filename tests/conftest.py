"""Shared by all tests: the skip policy, a check for leftover processes, a home, the small real model."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from pophood.system import home
from tests import processes
from tests.needs import forbidden_skip

ROOT = Path(__file__).resolve().parent.parent
USERS_HOME = home()  # before it is replaced below; tests only read it
VERSIONS_THAT_MATTER = (
    "numpy",
    "tokenizers",
    "jinja2",
    "torch",
    "transformers",
    "gguf",
    "tiktoken",
    "llama-cpp-python",
)
SETTINGS = (
    "POPHOOD_MODEL",
    "POPHOOD_MODELS",
    "POPHOOD_OFFLINE",
    "POPHOOD_THREADS",
    "POPHOOD_ISA",
    "NO_COLOR",
    "HF_TOKEN",
    "HF_ENDPOINT",
)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Report the machine, and the versions on which agreement of numbers depends."""
    from importlib.metadata import PackageNotFoundError, version

    from pophood import system

    found = []
    for name in VERSIONS_THAT_MATTER:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    memory = system.available_memory() / 2**30
    return [
        f"versions: {', '.join(found)}",
        f"machine: {system.physical_cores()} cores, {memory:.1f} GiB free, home {os.environ['POPHOOD_HOME']}",
    ]


def pytest_configure(config: pytest.Config) -> None:
    """Give pophood a home inside build/ (kept between runs, so the small model is fetched once).

    SIGTERM ends the tests as Ctrl-C does, so that their processes end too. A shell makes a command with `&`
    ignore SIGINT, and children inherit that; the tests of Ctrl-C need the default.
    """
    os.environ["POPHOOD_HOME"] = str(ROOT / "build" / "test-home")
    for name in SETTINGS:
        os.environ.pop(name, None)
    if "PYTEST_XDIST_WORKER" in os.environ:  # before any test imports torch: the workers share the cores
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ["POPHOOD_THREADS"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    processes.adopt_orphans()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose skip CI does not allow (tests/needs.py), or that leaves a process running."""
    report = yield
    if call.when == "teardown":
        left = processes.kill_leftovers()
        if left:
            report.outcome = "failed"
            report.longrepr = f"left running, now killed: {', '.join(map(str, left))}"
    if report.skipped and "xfail" not in report.keywords and isinstance(report.longrepr, tuple):
        complaint = forbidden_skip(report.longrepr[2])
        if complaint is not None:
            report.outcome = "failed"
            report.longrepr = complaint
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a file that CI does not allow to skip itself while it is collected."""
    report = yield
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        complaint = forbidden_skip(report.longrepr[2])
        if complaint is not None:
            report.outcome = "failed"
            report.longrepr = complaint
    return report


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct: the user's own, or one downloaded to build/test-home."""
    from pophood.errors import NotFound
    from pophood.hub import locate

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POPHOOD_MODELS", str(USERS_HOME / "models"))
        patch.delenv("HF_HUB_OFFLINE", raising=False)  # it keeps some oracles offline
        try:
            return locate("smollm2").path
        except NotFound as error:
            pytest.skip(f"needs smollm2, which could not be fetched: {error}")


@pytest.fixture(scope="session")
def smollm2_path(smollm2: Path) -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct, as `smollm2`."""
    return smollm2
