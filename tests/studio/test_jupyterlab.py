"""A view in a real JupyterLab: its cell is run in a browser, drawn, walked through, and follows the theme."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pophood.look.figures import has_drawings
from tests import processes
from tests.cli.browser import chromium
from tests.studio.browser.tab import Tab

pytestmark = pytest.mark.full

PATIENCE = 120.0  # seconds for a server, a kernel or a page
FOLDERS = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
SETTINGS = {  # else it asks for a kernel, and for leave to fetch news
    "docmanager-extension/plugin": {"autoStartDefaultKernel": True},
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
CELL = "document.querySelectorAll('.jp-CodeCell')"
LABELS = f"[...{CELL}[1].querySelectorAll('.ph-stage')].map(e => e.getAttribute('aria-label'))"
HEAD = f"{CELL}[1].querySelectorAll('select')[1]"
CORNER = """(canvas => [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data].join())
(document.querySelector('.ph-stage canvas'))"""
THEMES = {"Light": "255,255,255,255", "Dark": "13,17,23,255"}


def notebook(model: Path) -> dict[str, Any]:
    """Return a notebook that shows two views of a model as widgets."""
    load = f"import pophood\nfrom pophood import look\nlm = pophood.load({str(model)!r})"
    sources = [load, "look.attention(lm, 'the cat sat').widget()", "look.architecture(lm).widget()"]
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    cells = [empty | {"id": f"cell{i}", "source": source} for i, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@contextmanager
def jupyterlab(folder: Path, model: Path) -> Iterator[str]:
    """Start a JupyterLab whose settings and files are in a folder; gives the address of the notebook."""
    (folder / "work").mkdir()
    (folder / "work" / "view.ipynb").write_text(json.dumps(notebook(model)))
    for name, values in SETTINGS.items():
        setting = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        setting.parent.mkdir(parents=True)
        setting.write_text(json.dumps(values))
    places = {f"JUPYTER_{name}": str(folder / name.lower()) for name in FOLDERS}
    places |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": "0",
        "ServerApp.root_dir": str(folder / "work"),
        "IdentityProvider.token": "token",
        "LabApp.expose_app_in_browser": "True",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    told = folder / "log.txt"
    with (
        told.open("w") as log,
        processes.started_bytes(command, env=os.environ | places, stdout=log, stderr=log) as server,
    ):
        end = time.monotonic() + PATIENCE
        while not (found := list((folder / "runtime_dir").glob("jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < end, told.read_text()
            time.sleep(0.1)
        time.sleep(0.5)  # the file is written in two steps
        yield f"{json.loads(found[0].read_text())['url']}lab/tree/view.ipynb?token=token"


@pytest.fixture
def lab(tmp_path: Path, tiny_model: Path) -> Iterator[Tab]:
    """A tab with the notebook, whose kernel waits."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("needs Python package: jupyterlab")
    if not has_drawings():
        pytest.skip("needs tool: a built studio (make studio)")
    with jupyterlab(tmp_path, tiny_model) as address, chromium(tmp_path / "profile") as page:
        tab = Tab(page)
        tab.look(1280, 1400)
        page.call("Page.navigate", url=address)
        tab.until(f"{KERNEL} === 'idle' && {CELL}.length === 3", PATIENCE)
        yield tab


def test_a_cell_draws_a_view_that_follows_the_theme(lab: Tab, tmp_path: Path) -> None:
    lab.value("void jupyterapp.commands.execute('notebook:run-all-cells')")
    lab.until(f"{CELL}[2].querySelector('.ph-stage canvas')", PATIENCE)
    assert lab.value("document.querySelectorAll('.jp-RenderedText[data-mime-type*=error]').length") == 0
    assert lab.value(LABELS)[0].startswith("layer ")
    lab.value(f"{HEAD}.value = '1'; {HEAD}.dispatchEvent(new Event('change'))")
    lab.until(f"{LABELS}[0].includes('head 1')")
    assert "From token ids to probabilities" in lab.text()
    for theme, colour in THEMES.items():
        name = json.dumps({"theme": f"JupyterLab {theme}"})
        lab.value(f"void jupyterapp.commands.execute('apputils:change-theme', {name})")
        lab.until(f"{CORNER} === {colour!r}", PATIENCE)
        shot = lab.page.call("Page.captureScreenshot", format="png")["data"]
        (tmp_path / f"{theme}.png").write_bytes(base64.b64decode(shot))
    thrown = [event for event in lab.page.events if event.get("method") == "Runtime.exceptionThrown"]
    assert thrown == []
