"""The parts of a kit that are written and not copied: the course, the lists, the scripts for a laptop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from pophood.hub import Located
from pophood.kit.copying import KitDialogue
from pophood.kit.manifest import KIT, KitManifest
from pophood.kit.packages import LockedWheel
from pophood.system import atomic_write, size_text

LAPTOP = files("pophood.kit.laptop")


def write_course(
    folder: Path, model: Located, language: str, slides: bool, making: Path, dialogue: KitDialogue
) -> list[Path]:
    """Write the notebook, and the slides with a model's outputs; slides of a stopped run are kept."""
    from pophood.course import load_course
    from pophood.course.notebook import notebook_json

    folder.mkdir(parents=True, exist_ok=True)
    course = load_course(language)
    notebook, deck = folder / "talk.ipynb", folder / "talk.html"
    atomic_write(notebook, notebook_json(course, model.name).encode())
    if not slides:
        return [notebook]
    done = making / "slides"
    made_from = f"{version('pophood')} {model.name} {language}"
    if not (deck.is_file() and done.is_file() and done.read_text(encoding="utf-8") == made_from):
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
    """Write kit.json, README.txt, the scripts, and the requirements of every Python; return the latter."""
    lists = []
    (out / "requirements").mkdir(exist_ok=True)
    for python, wheels in locked.items():
        lists.append(out / "requirements" / f"python-{python}.txt")
        lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels if w.name != "pip"]
        atomic_write(lists[-1], "".join(lines).encode())
    atomic_write(out / KIT, manifest.text().encode())
    words = {
        "@PYTHONS@": " ".join(manifest.pythons),
        "@PYTHON_WORDS@": " or ".join(manifest.pythons),
        "@VERSION@": manifest.pophood,
        "@PLATFORM@": manifest.platform,
        "@GLIBC@": f"2.{manifest.glibc}",
        "@SIZE@": size_text(max(manifest.installed.values())),
        "@MODELS@": "\n".join(f"    {m.name}: {m.licence or 'no licence named'}" for m in manifest.models),
        "@MODEL@": manifest.models[0].name,
    }
    for name in ("README.txt", "setup.sh", "install.py"):
        text = (LAPTOP / name).read_text(encoding="utf-8")
        for mark, value in words.items():
            text = text.replace(mark, value)
        atomic_write(out / name, text.encode())
    return lists
