"""A page as a story: its blocks run in order, in one folder with a home of its own, Python in one namespace.

The folder shows the project's files as a checkout does. `make` only says what it would do, since it installs
and builds this very environment. A server that a page starts runs until the page's end or its next server.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.docs.blocks import Block
from tests.docs.plan import FILES, INSTEAD
from tests.tiny_folder import tiny_folder
from tests.tiny_thinker import thinker

KEY = "the-key-of-the-pages"
SERVER = re.compile(r"pophood (?:serve|studio)\b")
PREPARED = 'set -eu\nmake() { command make -n "$@" > /dev/null; }\n'
# A chat template that reads the variables of docs/chat.md.
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n</think>\n{% endif %}{% endif %}"
)
LINES = '{"prompt": "The capital of Spain is", "max_tokens": 2}\n{"prompt": "Once", "max_tokens": 2}\n'


class Story:
    """The folder, home, namespace and server of one page."""

    def __init__(self, page: str, blocks: list[Block], folder: Path, smollm2: Path) -> None:
        self.page, self.folder, self.names = page, folder, dict[str, Any](__name__="__main__")
        self.patch, self.server = pytest.MonkeyPatch(), ExitStack()
        for path in ROOT.iterdir():
            if path.name not in (".git", ".venv", "build", "dist"):
                (folder / path.name).symlink_to(path)
        (folder / "build" / "dev").mkdir(parents=True)
        (folder / "build" / "dev" / "CMakeCache.txt").touch()  # or `make -n native` would begin anew
        plays = ROOT / "tests" / "data" / "tinyshakespeare" / "first-120000.txt"
        (folder / "notes.txt").write_text(plays.read_text(encoding="utf-8")[:8000], encoding="utf-8")
        (folder / "prompts.jsonl").write_text(LINES, encoding="utf-8")
        for block in blocks:
            for name, file in FILES.get(page, {}).items():
                if block.named(name):
                    (folder / file).parent.mkdir(exist_ok=True)
                    (folder / file).write_text(block.text, encoding="utf-8")
        models = folder / "home" / "models"
        models.mkdir(parents=True)
        (models / "smollm2").symlink_to(smollm2.parent)
        tiny_folder(models / "gpt2", "gpt2", n_positions=256)
        thinker(models / "MODEL", TEMPLATE)

    def __enter__(self) -> Story:
        settings = {
            "HOME": str(self.folder),
            "POPHOOD_HOME": str(self.folder / "home"),
            "POPHOOD_MODEL": "smollm2",
            "POPHOOD_OFFLINE": "1",
            "POPHOOD_API_KEY": KEY,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONUTF8": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "BROWSER": "true",  # of pophood studio
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        for name, value in settings.items():
            self.patch.setenv(name, value)
        self.patch.chdir(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
        self.patch.undo()

    def tell(self, block: Block) -> None:
        """Run one block; fails the test if it does not end well."""
        text = block.text
        for written, replacement in INSTEAD.get(self.page, {}).items():
            text = text.replace(written, replacement)
        if block.kind == "python" and "import ray" in text:  # it leaves processes behind
            self.run(f"{sys.executable} - <<'END'\n{text}END\n", block)
        elif block.kind == "python":
            exec(compile(text, str(block), "exec"), self.names)
        elif SERVER.match(text):
            self.serve(text)
        else:
            self.run(re.sub(r"^export POPHOOD_.*\n", "", text, flags=re.MULTILINE), block)

    def run(self, text: str, block: Block) -> None:
        """Run lines of a shell to their end."""
        done = processes.run(
            ["bash", "-c", PREPARED + text],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def serve(self, text: str) -> None:
        """Start a server and wait for its address, which goes to POPHOOD_URL; Ctrl-C has to end it."""
        self.server.close()
        said = self.folder / "server.txt"
        with said.open("wb") as log:
            process = self.server.enter_context(
                processes.started(
                    ["bash", "-c", f"exec {text}"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            )

        def stop() -> None:
            process.send_signal(signal.SIGINT)
            assert process.wait(processes.DYING_SECONDS) == 130, said.read_text(encoding="utf-8")

        end = time.monotonic() + processes.HANG_SECONDS
        while not (address := re.search(r"http://127\.0\.0\.1:\d+", said.read_text(encoding="utf-8"))):
            assert process.poll() is None and time.monotonic() < end, said.read_text(encoding="utf-8")
            time.sleep(0.05)
        self.server.callback(stop)
        self.patch.setenv("POPHOOD_URL", address[0])
