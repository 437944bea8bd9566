"""The parts of a kit that are written and not copied: the course, the lists, the scripts for a laptop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from pophood.course import Course
from pophood.course.notebook import notebook_json
from pophood.hub import Located
from pophood.hub.store import PROVENANCE
from pophood.kit.copying import KitDialogue
from pophood.kit.manifest import KitManifest, KitModel
from pophood.kit.packages import LockedWheel
from pophood.kit.platforms import platform_named
from pophood.system import atomic_write, size_text

LAPTOP = files("pophood.kit.laptop")


def write_course(
    folder: Path,
    course: Course,
    carried: KitModel,
    model: Located | None,
    making: Path,
    dialogue: KitDialogue,
) -> list[Path]:
    """Write the notebook, and the slides with the outputs of `model` (None: no slides).

    Slides that a stopped run has made are kept if it had the same course and model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notebook, deck = folder / "talk.ipynb", folder / "talk.html"
    text = notebook_json(course, carried.name)
    atomic_write(notebook, text.encode())
    if model is None:
        return [notebook]
    done = making / "slides"
    hashes = sorted(carried.files[name] for name in carried.files if name != PROVENANCE)
    facts = json.dumps([version("pophood"), text, hashes])
    made_from = hashlib.sha256(facts.encode()).hexdigest()
    if not (deck.is_file() and done.is_file() and done.read_text(encoding="utf-8") == made_from):
        if find_spec("matplotlib") is None:
            dialogue.say(
                "the slides have tables for pictures: matplotlib is missing (pip install 'pophood[plot]')"
            )
        from pophood.course.deck import deck_html
        from pophood.model import lm

        with dialogue.during("making the slides") as report:
            loaded = lm.load(model, precision="f32")

            def announce(done: int, pages: int, title: str) -> None:
                report(done, pages)
                dialogue.detail(f"{done + 1}/{pages} {title}")

            atomic_write(deck, deck_html(course, loaded, model.name, announce).encode())
        atomic_write(done, made_from.encode())
    return [notebook, deck]


def write_texts(out: Path, manifest: KitManifest, locked: Mapping[str, Sequence[LockedWheel]]) -> list[Path]:
    """Write README.txt, the scripts, and the requirements of every Python; return the latter."""
    lists = []
    target, language = platform_named(manifest.platform), manifest.language
    (out / "requirements").mkdir(exist_ok=True)
    for python, wheels in locked.items():
        lists.append(out / "requirements" / f"python-{python}.txt")
        lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels if w.name != "pip"]
        atomic_write(lists[-1], "".join(lines).encode())
    words = {
        "@PYTHONS@": " ".join(manifest.pythons),
        "@PYTHON_WORDS@": ", ".join(manifest.pythons),
        "@COMMANDS@": " ".join(f"python{python}" for python in manifest.pythons),
        "@VERSION@": manifest.pophood,
        "@PLATFORM@": manifest.platform,
        "@UNAME@": f"{target.system} {target.machine}",
        "@GLIBC@": f"2.{manifest.glibc}",
        "@SIZE@": size_text(max(manifest.installed.values())),
        "@MODELS@": "\n".join(f"    {m.name}: {m.licence or 'no licence named'}" for m in manifest.models),
        "@MODEL@": manifest.models[0].name + (f" --language {language}" if language != "en" else ""),
    }
    for name in ("README.txt", "setup.sh", "install.py"):
        text = (LAPTOP / name).read_text(encoding="utf-8")
        for mark, value in words.items():
            text = text.replace(mark, value)
        atomic_write(out / name, text.encode())
    return lists
