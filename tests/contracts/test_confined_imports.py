"""Powers that few files have: connections, child processes, pickles, the native module."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.contracts.sources import product_files

PACKAGE = ROOT / "src" / "pophood"
# What may be imported -> by whom alone (paths below src/pophood).
CONFINED = {
    "socket": {"hub/net/connect.py", "serve/guard/listening.py", "cli/commands/doctor.py"},
    "ssl": {"hub/net/connect.py", "hub/net/web.py"},
    "http.client": {"hub/net/connect.py", "hub/net/web.py"},
    "urllib.request": {"hub/net/connect.py"},
    "requests": set(),
    "httpx": set(),
    "huggingface_hub": set(),
    "subprocess": {
        "hub/pip_run.py",
        "kit/laptop/install.py",  # on a laptop, in front of pophood
        "bench/timing.py",
        "serve/process/spawn.py",
        "studio/tuning/process.py",  # `pophood tune`
    },
    "multiprocessing": set(),
    "pickle": {"serve/process/pipe.py"},  # on pipes between two processes of one server, and nowhere else
    "marshal": set(),
    "shelve": set(),
    "llguidance": {"grammar/matching.py"},
    "ray": {"batch/cluster/driver.py"},
    "pyarrow": {"batch/cluster/driver.py"},
    "tensorboardX": {"train/report/tensorboard.py"},
    "pophood._native": {
        "model/call.py",
        "model/engine.py",
        "model/machine.py",
        "model/native_config.py",
        "model/sequences.py",
        "train/model/ops.py",
        "cli/commands/doctor.py",
    },
}


def imported_names(source: str) -> Iterator[str]:
    """Every module name that a file imports anywhere, with the names taken from it appended."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (
                a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


def test_a_file_that_imports_is_seen() -> None:
    assert set(imported_names("def f():\n    from http import client\nimport a.b")) == {"http.client", "a.b"}


@pytest.mark.parametrize("power", CONFINED)
def test_a_power_stays_where_it_belongs(power: str) -> None:
    holders = {
        path.relative_to(PACKAGE).as_posix()
        for path in product_files()
        if path.suffix == ".py"
        for name in imported_names(path.read_text(encoding="utf-8"))
        if name == power or name.startswith(f"{power}.")
    }
    assert holders <= CONFINED[power]
