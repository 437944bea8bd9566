"""Only `hub/` opens connections, and finding local models does not import the network modules."""

from __future__ import annotations

import ast
import sys

from tests import processes
from tests.conftest import ROOT

NETWORK = {
    "socket",
    "ssl",
    "http",
    "urllib.request",
    "ftplib",
    "smtplib",
    "socketserver",
    "asyncio",
    "requests",
    "httpx",
}
NETWORK |= {"httpx2", "huggingface_hub", "aiohttp", "xmlrpc", "telnetlib", "urllib3"}
CHILDREN = {"subprocess", "multiprocessing", "pty"}
SOURCES = ROOT / "src" / "pophood"


def importers(modules: set[str]) -> set[str]:
    """Return the files of the package that import one of the modules, anywhere in the file."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(name == module or name.startswith(f"{module}.") for name in names for module in modules):
                found.add(path.relative_to(SOURCES).as_posix())
    return found


def test_two_files_import_the_network_and_one_starts_a_program() -> None:
    allowed = {"hub/net/connect.py", "hub/net/web.py"}
    outside = {name for name in importers(NETWORK) if not name.startswith(("serve/", "studio/"))}
    assert outside <= allowed | {"cli/commands/doctor.py"}
    studio = {name for name in importers(NETWORK - {"asyncio"}) if name.startswith("studio/")}
    assert not studio, "its routes run in the server's loop, and open nothing themselves"
    assert allowed <= importers(NETWORK)
    assert {name for name in importers(CHILDREN) if name.startswith("hub/")} == {"hub/pip_run.py"}


def test_finding_a_model_imports_no_network() -> None:
    program = (
        "import sys; from pophood import hub; hub.default_choice(); hub.list_models()\n"
        "print([m for m in ('socket', 'ssl', 'http.client', 'urllib.request', 'subprocess', 'hashlib',"
        " 'logging', 'huggingface_hub') if m in sys.modules])"
    )
    done = processes.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
