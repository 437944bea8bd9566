"""docs/grammar.md: its programs run in order."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests import processes
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "grammar.md").read_text(encoding="utf-8")


def test_its_commands_run(smollm2: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "POPHOOD_MODELS": str(smollm2.parent.parent), "POPHOOD_OFFLINE": "1"}
    lines = re.findall(r"^```sh\n(p[or].*?)^```", PAGE, re.MULTILINE | re.DOTALL)  # not pip
    forms = [r"(19|20)\d\d\n\"(yes|no)\"\n\{.*\n", r"\{.*\"completion\": \"[12]\d{3}\".*\}\n"]
    for text, form in zip(lines, forms, strict=True):
        done = processes.run(
            ["sh", "-e", "-c", text], env=os.environ | own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(form, done.stdout), done.stdout


def test_its_programs_run(smollm2: Path) -> None:
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    environment = os.environ | {"POPHOOD_MODELS": str(smollm2.parent.parent), "POPHOOD_OFFLINE": "1"}
    command = [sys.executable, "-W", "error", "-c", program]
    done = processes.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, date, mood = done.stdout.splitlines()
    assert name and len(name) <= 20
    assert re.fullmatch(r"(19|20)\d\d-[01]\d-[0-3]\d", date)
    assert mood in ("yes", "no")
