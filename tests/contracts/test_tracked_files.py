"""Tracked files name no path of one machine and no registry's host, and hold no weights."""

from __future__ import annotations

import re

from tests import processes
from tests.conftest import ROOT
from tests.contracts.sources import tracked_files

LARGEST = 1_200_000  # bytes; only a published vocabulary may come near, weights are fetched or made
BINARY = {".png", ".ico", ".woff2"}
DATA = ROOT / "tests" / "data"  # other people's texts, kept to the letter
# Written in pieces so that this file does not find itself.
FORBIDDEN = {
    "a machine's path": r"(?<![\w.$}>])/(?:work|root|(?:home|Users)/\w+|opt/(?:wheels|pypi)|tmp/setup)\b",
    "a registry's host": r"\b(?:pypi\.(?:org|python)|files\.python"
    + r"hosted|registry\.npm"
    + r"js|deb\.debian|crates\.io)",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----|\bhf_[A-Za-z0-9]{30,}",
    "a left-over": r"\b(?:FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|^(?:<{7}|>{7}) ",
}


def test_nothing_forbidden_is_tracked() -> None:
    found = []
    for path in tracked_files():
        if path.suffix in BINARY:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {what}: {line.strip()[:80]}"
                for what, pattern in FORBIDDEN.items()
                if re.search(pattern, line) and not (what == "a left-over" and DATA in path.parents)
            ]
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_are_for() -> None:
    samples = {
        "a machine's path": "open('/wo" + "rk/main/x')",
        "a registry's host": "https://py" + "pi.org/simple",
        "a private key": "-----BEGIN RSA PRIVATE" + " KEY-----",
        "a left-over": "# FIX" + "ME later",
    }
    assert samples.keys() == FORBIDDEN.keys()
    for what, sample in samples.items():
        assert re.search(FORBIDDEN[what], sample), what


def test_no_large_or_binary_model_file_is_tracked() -> None:
    large = {
        str(p.relative_to(ROOT)): p.stat().st_size for p in tracked_files() if p.stat().st_size > LARGEST
    }
    assert not large
    weights = [
        p.name
        for p in tracked_files()
        if p.suffix in {".safetensors", ".gguf", ".bin", ".pt", ".pkl", ".npz"}
    ]
    assert not weights


def test_no_file_needs_carriage_returns_or_lacks_its_last_newline() -> None:
    odd = []
    for path in tracked_files():
        data = path.read_bytes()
        if path.suffix not in BINARY and data and (b"\r" in data or not data.endswith(b"\n")):
            odd.append(str(path.relative_to(ROOT)))
    assert not odd


def test_scripts_may_be_run() -> None:
    modes = processes.run(
        ["git", "ls-files", "-s", ".ci/run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert modes.stdout.startswith("100755")
