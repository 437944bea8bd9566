"""`make studio`: its check finds wrong types; what it builds is small, without maps and without copies."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import sys
from pathlib import Path

import pytest

from pophood.look.figures.theme import SCALES, THEMES
from tests import processes
from tests.conftest import ROOT
from tests.needs import tool

STUDIO = ROOT / "studio"
BUILT = (ROOT / "src/pophood/studio/dist", ROOT / "src/pophood/web/dist")
MOST_BYTES = 1_500_000  # by which the wheel may grow
FIRST_SCREEN, EVERYTHING = 150_000, 700_000  # bytes of the app as gzip
KINDS = {".html", ".js", ".css", ".svg", ".png", ".woff2", ".json"}


def built_files() -> list[Path]:
    """Return the files that `make studio` has built; none without Node."""
    return sorted(path for folder in BUILT for path in folder.rglob("*") if path.is_file())


def built() -> list[Path]:
    """Return the built files, or skip the test if there are none."""
    if not built_files():
        pytest.skip("needs tool: a built studio (make studio)")
    return built_files()


def test_a_wrong_type_fails_the_check(tmp_path: Path) -> None:
    npm = tool("npm")
    if not (STUDIO / "node_modules").is_dir():
        pytest.skip("needs tool: studio/node_modules (make studio)")
    copy = tmp_path / "studio"
    shutil.copytree(STUDIO, copy, ignore=shutil.ignore_patterns("node_modules", "tests", "pages"))
    (copy / "node_modules").symlink_to(STUDIO / "node_modules")
    (copy / "draw" / "planted.ts").write_text('export const one: number = "a word";\n')
    (copy / "app" / "Planted.svelte").write_text('<script lang="ts">let two: number = "x";</script>{two}\n')
    result = processes.run([npm, "run", "-s", "check"], cwd=copy, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "draw/planted.ts" in output, output
    assert "app/Planted.svelte" in output, output
    assert "found 2 errors" in output, output


def test_without_node_the_tests_go_on_and_the_reason_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(STUDIO / "make.py"), "--if-possible"]  # -S: without pip's Node
    environment = {"PATH": str(tmp_path)}
    result = processes.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0
    assert "studio: not built, no Node 20.19 or newer: `make studio` brings one" in result.stdout


def test_the_lock_names_no_host() -> None:
    lock = (STUDIO / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    pinned = re.findall(r'"[\w@/-]+": "([^"]+)"', (STUDIO / "package.json").read_text(encoding="utf-8"))
    versions = [version for version in pinned if version[0] in "^~>0123456789"]
    assert [version for version in versions if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == [">=20.19"]


def test_lines_of_the_sources_have_at_most_110_characters() -> None:
    sources = [path for ending in ("ts", "svelte", "css", "mjs") for path in STUDIO.rglob(f"*.{ending}")]
    own = [path for path in sources if "node_modules" not in path.parts]
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in own
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 110
    ]
    assert long == [], "make format breaks code; texts and comments are broken by hand"


def test_what_is_built_has_no_maps_no_copies_and_no_addresses_of_others() -> None:
    files = built()
    assert not [path for path in files if path.suffix not in KINDS or path.name.startswith(".")]
    hashes = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    assert len(set(hashes)) == len(hashes)
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in {".js", ".css", ".html"}]
    assert not [text for text in texts if "sourceMappingURL" in text or str(ROOT) in text]
    pages = [path.read_text(encoding="utf-8") for path in BUILT[1].glob("*.js")]
    assert not [text for text in pages if "</script" in text or "<!--" in text], "it stands inside a page"


def test_what_is_built_stays_within_its_size() -> None:
    files = built()
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    sizes = {path: len(gzip.compress(path.read_bytes())) for path in files if BUILT[0] in path.parents}
    assert sum(sizes.values()) < EVERYTHING
    page = (BUILT[0] / "index.html").read_text(encoding="utf-8")
    first = [path for path in sizes if path.name in page or path.name == "index.html"]
    assert sum(sizes[path] for path in first) < FIRST_SCREEN


def test_both_languages_have_the_same_colours() -> None:
    source = (STUDIO / "draw" / "theme.ts").read_text(encoding="utf-8")
    scales, _, themes = source.partition("/** The colours of a picture.")
    for name, colours in SCALES.items():
        part = scales.partition(f"{name}")[2].partition("]")[0]
        assert tuple(re.findall(r"#[0-9a-f]{6}", part)) == colours
    for theme in THEMES.values():
        part = themes.partition(f"const {theme.name.upper()}: Theme")[2].partition("};")[0]
        plain = (theme.background, theme.surface, theme.text, theme.muted, theme.line)
        assert tuple(re.findall(r"#[0-9a-f]{6}", part)) == (*plain, *theme.accents)
        assert f'sequential: "{theme.sequential}"' in part and f'diverging: "{theme.diverging}"' in part
