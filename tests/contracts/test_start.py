"""Importing pophood and asking for help stay light: no torch, no oracle, no connection, few steps.

Seconds depend on the machine and on its other work: benchmarks/start.py measures them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT

PYTHON = [sys.executable, "-X", "utf8"]
ORACLES = ["torch", "transformers", "peft", "gguf", "tiktoken", "llama_cpp", "ctranslate2"]
LATE = ["tokenizers", "huggingface_hub", "jinja2", "rich", "numpy", "click"]
HELP_NEEDS = {"click"}  # of what is installed beside pophood
HELP_MODULES = 38  # of pophood's own
TUNE_MODULES = 43  # for tune, whose options are those of training
HELP_CALLS = 60_000  # Python functions that run, those of the imports included


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `statement`."""
    code = (
        f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    result = processes.run([*PYTHON, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_pophood_is_light() -> None:
    loaded = modules_after("import pophood")
    assert not loaded & {*ORACLES, *LATE}


def test_public_names_are_real_and_documented() -> None:
    import pophood

    assert 5 <= len(pophood.__all__) <= 20
    for name in pophood.__all__:
        value = getattr(pophood, name)
        assert name == "__version__" or value.__doc__, name
    assert set(pophood.__all__) <= set(dir(pophood))


def test_everything_imports_without_the_oracles() -> None:
    """Torch is one of them: only `train` needs it, which says so where it is missing (tests/train)."""
    names = ", ".join(f"{name!r}: None" for name in ORACLES)
    walk = (
        f"sys.modules.update({{{names}}})\n"
        "import importlib, pkgutil, pophood\n"
        "for m in pkgutil.walk_packages(pophood.__path__, 'pophood.'):\n"
        "    if not (m.name.endswith('__main__') or m.name.startswith('pophood.train.')):\n"
        "        importlib.import_module(m.name)"
    )
    assert "pophood" in modules_after(walk)


COUNTED = """
import json, sys
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
sys.argv = ["pophood", *json.loads(sys.argv[1])]
before = set(sys.modules)
sys.setprofile(count)
try:
    from pophood.cli import main
    main()
except SystemExit:
    pass
sys.setprofile(None)
print()
print(json.dumps({"calls": calls, "modules": sorted(set(sys.modules) - before)}))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["chat", "--help"], ["tune", "--help"], ["--version"]]
)
def test_help_takes_few_steps(arguments: list[str]) -> None:
    """Nothing but click is imported, little of pophood, and few functions are called, whatever the load."""
    command = [*PYTHON, "-c", COUNTED, json.dumps(arguments)]
    done = processes.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    shown, _, last = done.stdout.rstrip("\n").rpartition("\n")
    assert "pophood" in shown
    counted = json.loads(last)
    modules = set(counted["modules"])
    own = {name for name in modules if name.partition(".")[0] == "pophood"}
    others = {name.partition(".")[0] for name in modules - own} - sys.stdlib_module_names
    assert others <= HELP_NEEDS
    assert 0 < len(own) <= (TUNE_MODULES if "tune" in arguments else HELP_MODULES), own
    assert 0 < counted["calls"] <= HELP_CALLS
    print(f"{len(own)} modules of pophood, {len(modules)} in all, {counted['calls']:,} calls")


def test_help_does_not_wait_for_input_or_the_network(tmp_path: Path) -> None:
    """With standard input left open and every connection refused, help still ends by itself."""
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from pophood.cli import main\n"
        "sys.argv = ['pophood', '--help']; main()"
    )
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"POPHOOD_HOME": str(tmp_path)}
    with processes.started([*PYTHON, "-c", code], **streams, env=environment, cwd=ROOT) as process:
        process.wait(timeout=processes.HANG_SECONDS)  # communicate() would close standard input
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Usage" in output
    assert not list(tmp_path.iterdir()), "help wrote files"
