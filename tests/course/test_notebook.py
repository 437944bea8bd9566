"""The notebook has the text of the course, is valid and reproducible, and runs from start to end."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from pophood.course import Course
from pophood.course.notebook import notebook_json
from tests.conftest import ROOT
from tests.processes import HANG_SECONDS
from tests.tiny import tiny_folder

TRACKED = ROOT / "notebooks" / "talk.ipynb"


@pytest.fixture(scope="module")
def book(course: Course) -> Any:
    return json.loads(notebook_json(course))


def source(cell: Any) -> str:
    return "".join(cell["source"])


def test_the_tracked_notebook_is_what_the_course_writes(course: Course) -> None:
    assert TRACKED.read_text(encoding="utf-8") == notebook_json(course), "run: make notebook"


def test_it_is_valid_and_has_slides(book: Any) -> None:
    import nbformat

    nbformat.validate(nbformat.reads(json.dumps(book), as_version=4))  # type: ignore[no-untyped-call]
    kinds = [cell["metadata"]["slideshow"]["slide_type"] for cell in book["cells"]]
    assert {"slide", "subslide", "notes"} <= set(kinds) and kinds[0] == "slide"
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert not any(cell.get("outputs") for cell in book["cells"])


def test_every_page_is_there_with_its_four_sections(book: Any, course: Course) -> None:
    text = "\n".join(source(cell) for cell in book["cells"])
    for page in course.pages:
        assert f"## Page {page.number} of {len(course.pages)}: {page.title}" in text
    for section in ("Predict", "Run", "Check", "Explain"):
        assert text.count(f"### {section}\n") + text.count(f"### {section}") >= len(course.pages)
    checks = [cell for cell in book["cells"] if "-check-code-" in cell["id"]]
    assert len(checks) == len(course.pages)
    assert all(source(cell).rstrip(")").rpartition("\n")[2] and "check(" in source(cell) for cell in checks)
    assert not [cell["id"] for cell in book["cells"] if cell["cell_type"] == "code" and not code(cell)]


def code(cell: Any) -> bool:
    return bool(ast.parse(source(cell)).body)


def test_a_remark_about_other_models_names_them(book: Any) -> None:
    text = "\n".join(source(cell) for cell in book["cells"])
    assert "> **Models with rotary positions, such as smollm2:** there is no such matrix." in text


def test_it_runs_from_start_to_end(book: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook runs in its own kernel on a small model with GPT-2's vocabulary, all answers included."""
    import nbformat
    from nbclient import NotebookClient

    folder = tiny_folder(tmp_path / "model", "gpt2")
    monkeypatch.setenv("POPHOOD_MODEL", str(folder))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.reads(json.dumps(book), as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell["id"] == "page-10-predict-guess":
            cell["source"] = 'guess = "5"'
        if cell["id"] == "page-02-predict-guess":
            cell["source"] = "guess = 1.5e9"
    NotebookClient(notebook, timeout=int(HANG_SECONDS), kernel_name="python3").execute()
    outputs = {cell["id"]: cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"}
    assert not [out for found in outputs.values() for out in found if out["output_type"] == "error"]
    assert "Right: 5." in outputs["page-10-check-code-1"][-1]["data"]["text/html"]
    close = outputs["page-02-check-code-1"][-1]["data"]["text/html"]
    assert "Close: 1,557,611,200 (you said 1,500,000,000)." in close
    pictures = [
        out["data"]["text/html"]
        for found in outputs.values()
        for out in found
        if "<img" in str(out.get("data", {}).get("text/html", ""))
    ]
    assert len(pictures) >= 20 and all("alt='" in picture for picture in pictures)
