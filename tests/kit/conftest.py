"""Fixtures: a store with a tiny model, small wheels as pip's index, and a dialogue that listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pophood.hub import Located, locate
from pophood.kit import KitDialogue, KitPlan, make, make_kit, packages, platform_named
from pophood.kit.copying import OnBytes
from tests.kit.wheels import QuickPip, fill_index, own
from tests.tiny import tiny_folder


class Listener:
    """Collects what work on a kit says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.details: list[str] = []
        self.blocks: list[str] = []
        self.steps: list[tuple[int, int]] = []

    @property
    def dialogue(self) -> KitDialogue:
        return KitDialogue(self.said.append, self.details.append, self._during)

    @contextmanager
    def _during(self, what: str) -> Iterator[OnBytes]:
        self.blocks.append(what)
        yield lambda done, total: self.steps.append((done, total))


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which alone pip looks for packages."""
    fill_index(tmp_path / "index")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a home whose store has the model "tiny"."""
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    tiny_folder(tmp_path / "home" / "models" / "tiny", "gpt2")
    return tmp_path / "home"


@pytest.fixture
def tiny(home: Path) -> Located:
    return locate("tiny", offline=True)


@pytest.fixture
def plan(tiny: Located, tmp_path: Path) -> KitPlan:
    """Return a plan for one Python, without slides."""
    wheels = (own(tmp_path / "dist"),)
    return KitPlan((tiny,), ((3, 11),), platform_named("linux-x86_64"), wheels=wheels, slides=False)


@pytest.fixture
def quick_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> QuickPip:
    """Replace pip by a few lines of this process."""
    quick = QuickPip(index)
    monkeypatch.setattr(packages, "_resolve", quick.resolve)
    monkeypatch.setattr(make, "fetch_wheel", quick.fetch)
    return quick


@pytest.fixture
def kit(plan: KitPlan, tmp_path: Path, listener: Listener, quick_pip: QuickPip) -> Path:
    """Return the folder of a whole kit."""
    make_kit(plan, tmp_path / "kit", listener.dialogue)
    return tmp_path / "kit"
