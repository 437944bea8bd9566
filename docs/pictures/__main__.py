"""Write the README's pictures into docs/images, all by the program itself with smollm2: `make pictures`.

    python -m docs.pictures [terminal] [report] [attention] [run] [studio] [peers]

The terminal is recorded first (docs/pictures/recorder.py): one shell that runs COMMANDS, with a fine-tuning
of a minute among them, whose report is then photographed. Without names everything is written; a report needs
the terminal's run, which stays in build/pictures. `studio` needs a built page (`make studio`). `peers` is
drawn from
benchmarks/results in a second, without a model or Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from docs.pictures import animation, peers, photograph, studio
from docs.pictures.recorder import record
from pophood.hub import pull
from pophood.system import home
from tests import processes

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "docs" / "images"
FOLDER = ROOT / "build" / "pictures"
TEXT = ROOT / "tests" / "data" / "tinyshakespeare" / "first-120000.txt"
COLUMNS, ROWS = 96, 32
COMMANDS = (
    'pophood run "The capital of Spain is" --greedy --max-tokens 20',
    'pophood look lens "The capital of Spain is"',
    "pophood tune shakespeare.txt --minutes 1 --learning-rate 5e-4",
    'pophood run "ROMEO:" --adapter shakespeare-lora --seed 1 --max-tokens 60',
)
PAGE_COMMAND = ("run", "Once upon a time", "--max-tokens", "40", "--seed", "42", "-q")
ATTENTION_COMMAND = (
    "look",
    "attention",
    "The capital of Spain is Madrid, and the capital of France is",
    "-q",
)
TITLE = "pophood in a terminal"
NAMES = ("terminal", "report", "attention", "run", "studio", "peers")


def main(names: list[str]) -> None:
    """Write the pictures of these names."""
    wrong = [name for name in names if name not in NAMES]
    if wrong:
        sys.exit(f"there is no picture {wrong[0]!r}: there are {', '.join(NAMES)}")
    if names != ["peers"]:
        photograph.require()
        pull("smollm2")  # otherwise the recorded shell would ask whether to fetch it, and wait for an answer
    FOLDER.mkdir(parents=True, exist_ok=True)
    makers = {
        "terminal": terminal, "report": report, "attention": attention, "run": run, "studio": screens,
        "peers": beside_peers,
    }  # fmt: skip
    for name in NAMES:
        if name in names or not names:
            for path in makers[name]():
                sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes\n")


def terminal() -> list[Path]:
    """Record COMMANDS in a fresh folder and write the animation."""
    work = FOLDER / "session"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copy(TEXT, work / "shakespeare.txt")
    recording = record(COMMANDS, work, environment(), COLUMNS, ROWS, {str(home()): "~/pophood"})
    shown, length = animation.frames(recording, COLUMNS, ROWS)
    words = "\n".join(f"$ {command}" for command in COMMANDS)
    path = IMAGES / "terminal.svg"
    path.write_text(animation.svg(shown, length, COLUMNS, TITLE, words), encoding="utf-8")
    return [path]


def report() -> list[Path]:
    """Photograph the report of the recorded fine-tuning."""
    page = FOLDER / "session" / "shakespeare-lora" / "report.html"
    if not page.exists():
        sys.exit(f"{page} is not there: run python -m docs.pictures terminal first")
    return photograph.both_themes(page, IMAGES / "report", FOLDER, high=900)


def attention() -> list[Path]:
    """`look attention` as the program saves it, in both themes."""
    paths = [IMAGES / f"attention-{theme}.png" for theme in ("light", "dark")]
    for theme, path in zip(("light", "dark"), paths, strict=True):
        pophood(*ATTENTION_COMMAND, "--theme", theme, "--save", str(path))
        photograph.reduce(path)
    return paths


def run() -> list[Path]:
    """Photograph the page of `pophood run --html` with one card open."""
    page = FOLDER / "run.html"
    pophood(*PAGE_COMMAND, "--html", str(page))
    return photograph.both_themes(page, IMAGES / "run", FOLDER, high=826, click="a.t:nth-of-type(9)")


def screens() -> list[Path]:
    """Photograph the studio's screens, with a run of a minute among them."""
    work = FOLDER / "studio"
    shutil.rmtree(work, ignore_errors=True)
    return studio.screens(IMAGES / "studio", work, TEXT)


def beside_peers() -> list[Path]:
    """Draw what benchmarks/peers.py measured, in both themes."""
    return peers.write(sorted((ROOT / "benchmarks" / "results").glob("*.json")), IMAGES / "peers")


def pophood(*arguments: str) -> None:
    """Run one command of the program."""
    processes.run(
        ["pophood", *arguments], cwd=FOLDER, env=environment(), stdin=subprocess.DEVNULL, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """This interpreter's scripts on the path, and the small model as the default."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "POPHOOD_MODEL": "smollm2", "PYTHONUTF8": "1"}


if __name__ == "__main__":
    main(sys.argv[1:])
