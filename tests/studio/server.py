"""`pophood studio` as a process, with a page of two files, and a browser without a screen: requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import processes
from tests.serve.command import Command
from tests.serve.wire import LOCAL, Response, request

API = "/studio/api"
PROGRAM = """
import sys
from pathlib import Path
from pophood.studio.routes import pages
pages.DIST = Path(sys.argv[1])
sys.argv[1:2] = ["studio"]
from pophood.cli import main
main()
"""


def page_files(folder: Path) -> Path:
    """Write a page as `make studio` would, and return its folder."""
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text("<!doctype html><title>Studio</title>", encoding="utf-8")
    (folder / "assets" / "index-BxY3k9Qz.js").write_text("export {}", encoding="utf-8")
    (folder / "assets" / "plain.css").write_text("body {}", encoding="utf-8")
    return folder


@dataclass(eq=False)
class StudioCommand(Command):
    """A running studio. `cookie` is that of its browser, once it has entered."""

    cookie: str = ""
    home: Path = Path()
    more: dict[str, str] = field(default_factory=dict)

    def enter(self) -> Response:
        """Open the link as a browser does that was started with it."""
        link = self.facts["link"].removeprefix(self.facts["url"])
        answer = request(self.port, link, key=None)
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Response:
        """Send a request as the page does: with the cookie, from its own origin."""
        own: dict[str, str | None] = {
            "cookie": self.cookie,
            "origin": f"http://{LOCAL}:{self.port}",
            "sec-fetch-site": "same-origin",
        }
        target = path if path.startswith(("/studio", "/v1", "/models")) else API + path
        return request(
            self.port, target, method=method, key=None, body=body, headers=own | dict(headers or {})
        )

    def get(self, path: str) -> Any:
        """Return the JSON of a route."""
        answer = self.ask(path)
        assert answer.status == 200, answer.body
        return answer.json

    def post(self, path: str, body: Any, *, status: int | tuple[int, ...] = (200, 201)) -> Any:
        """Send JSON, and return the JSON of the answer."""
        answer = self.ask(path, body)
        assert answer.status in (status if isinstance(status, tuple) else (status,)), answer.body
        return answer.json


@contextmanager
def studio(
    model: Path | str,
    *arguments: str,
    home: Path,
    port: int = 0,
    enters: bool = True,
    dist: Path | None = None,
    **more: str,
) -> Iterator[StudioCommand]:
    """Start `pophood studio MODEL --json --no-open`, wait until it accepts connections, and enter.

    `dist` is the page that it serves; without one a page of two files.
    """
    dist = dist or page_files(home / "dist")
    words = [sys.executable, "-c", PROGRAM, str(dist), str(model), "--json", "--no-open"]
    words += ["--port", str(port), *arguments]
    settings = {name: value for name, value in os.environ.items() if name != "POPHOOD_API_KEY"}
    settings |= {"POPHOOD_HOME": str(home), "POPHOOD_OFFLINE": "1", "PYTHONUTF8": "1"} | more
    with processes.started(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings) as process:
        assert process.stdout is not None and process.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(map(str.rstrip, process.stderr or ())))
        running = StudioCommand(process, reader, said=said, home=home)
        reader.start()
        try:
            line = process.stdout.readline()
            assert line, running.said
            running.facts = json.loads(line)
            if enters:
                running.enter()
            yield running
        finally:
            process.kill()
            reader.join()
