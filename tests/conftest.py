"""Shared by every test: the skip policy, a home that is never the user's own, and the small real model."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.needs import forbidden_skip

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("POPHOOD_MODEL", "POPHOOD_MODELS", "POPHOOD_OFFLINE", "POPHOOD_THREADS", "POPHOOD_ISA", "NO_COLOR")


def pytest_configure(config: pytest.Config) -> None:
    """Give pophood a home inside build/ (kept between runs, so the small model is fetched once)."""
    os.environ["POPHOOD_HOME"] = str(ROOT / "build" / "test-home")
    for name in SETTINGS:
        os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip that CI does not allow into a failure (see tests/needs.py)."""
    report = yield
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
    """The same for a file that skips itself while it is collected."""
    report = yield
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        complaint = forbidden_skip(report.longrepr[2])
        if complaint is not None:
            report.outcome = "failed"
            report.longrepr = complaint
    return report


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, fetched once into build/test-home."""
    from pophood.hub import locate

    return locate("smollm2").path
