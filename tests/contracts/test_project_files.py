"""The files that hosts and tools read: citation, templates, hooks, the security policy."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests import processes
from tests.conftest import ROOT
from tests.release import text_faults

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEMPLATES = ROOT / ".github"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys(), "what the format requires"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]


def release_texts(folder: Path, changelog: str, citation: str, version: str = "1.2.3") -> Path:
    """Write the files of a release that name its version."""
    (folder / "src" / "pophood").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n', encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    (folder / "CITATION.cff").write_text(citation, encoding="utf-8")
    (folder / "src" / "pophood" / "__init__.py").write_text('__version__ = "1.2.3"\n', encoding="utf-8")
    return folder


def test_a_release_names_one_version_and_date(tmp_path: Path) -> None:
    dated, citation = "# Changelog\n\n## [1.2.3] - 2027-01-31\n", "version: 1.2.3\n"

    def faults(*texts: str) -> list[str]:
        return list(text_faults(release_texts(tmp_path, *texts)))

    assert not faults(dated, citation)
    assert not faults(dated, f"{citation}date-released: '2027-01-31'\n")
    assert faults("## [Unreleased]\n", citation) == ["CHANGELOG.md has no line `## [1.2.3] - YYYY-MM-DD`"]
    assert faults(dated, f"{citation}date-released: 2027-02-01\n") == [
        "CITATION.cff was released on 2027-02-01, CHANGELOG.md says 2027-01-31"
    ]
    assert faults(dated, "version: 1.2.2\n") == ["CITATION.cff is of version 1.2.2, pyproject.toml of 1.2.3"]
    assert "src/pophood/__init__.py is not of version 1.2.4" in faults(dated, citation, "1.2.4")
    only_dates = [fault for fault in text_faults(ROOT) if not fault.startswith("CHANGELOG.md has no line")]
    assert not only_dates, "between releases the changelog may be undated, nothing else"


def test_templates_have_what_the_host_reads() -> None:
    for path in sorted((TEMPLATES / "ISSUE_TEMPLATE").glob("*.md")):
        _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
        assert {"name", "about"} <= yaml.safe_load(head).keys(), path.name
        assert "**" in body
    assert yaml.safe_load((TEMPLATES / "ISSUE_TEMPLATE" / "config.yml").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = (TEMPLATES / "pull_request_template.md").read_text(encoding="utf-8")
    for line in re.findall(r"`make ([a-z ]+)`", asked):
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in line.split())


def test_the_policy_names_places_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.-]+/)*[\w.-]+(?:/|\.py)?)`", text.split("## What is not promised")[0])
    paths = [name for name in named if "/" in name]
    assert len(paths) > 8
    roots = (ROOT, ROOT / "src" / "pophood")
    assert not [name for name in paths if not any((root / name).exists() for root in roots)]
    assert "Report a vulnerability" in text


def test_hooks_use_the_pinned_tools_and_existing_tests() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "another repository would bring versions of its own"
    for hook in hooks[0]["hooks"]:
        words = hook["entry"].split()
        assert words[0].startswith(".venv/bin/")
        assert not [word for word in words if word.startswith("tests/") and not (ROOT / word).is_file()]


@pytest.mark.full
def test_every_hook_passes(tmp_path: Path) -> None:
    """`pre-commit run --all-files`, also the hooks of a push."""
    program = Path(sys.executable).with_name("pre-commit")
    if not program.is_file() or shutil.which("git") is None or not (ROOT / ".venv").exists():
        pytest.skip("needs tool: pre-commit in .venv")
    for stage in ("pre-commit", "pre-push"):
        done = processes.run(
            [str(program), "run", "--all-files", "--hook-stage", stage],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PRE_COMMIT_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
