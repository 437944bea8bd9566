"""The parts of a run on several machines that need no Ray: lines as a step, order, digests, reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pophood
from pophood.batch.answers import encoded
from pophood.batch.cluster import RayLines
from pophood.batch.cluster.digests import KEPT, differing_file, file_digests
from pophood.batch.cluster.driver import block_sizes
from pophood.batch.cluster.in_order import InOrder
from pophood.batch.cluster.nodes import NodeReport, RayModel, examine, report_of, require_ray
from pophood.batch.custom_ids import CustomIds
from pophood.batch.lines import MOST_BYTES, InputLine
from pophood.batch.model import BatchModel, LineDefaults
from pophood.batch.parse import early_answer, read_line
from pophood.errors import BadFile, BadInput, NotFound
from pophood.hub.store import PROVENANCE
from pophood.model.identity import weights_digest
from tests import processes
from tests.batch.answered import SEED, answered, mixed, source_of, written


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def plain(folder: Path) -> pophood.LM:
    """Return the model without adapters."""
    return pophood.load(folder)


# Lines as a step of Ray Data -------------------------------------------------------------------------------


def rows_of(parts: Any) -> list[dict[str, Any]]:
    """Return the rows of batches of columns."""
    found = []
    for part in parts:
        sizes = {len(column) for column in part.values()}
        assert len(sizes) == 1
        found += [dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)]
    return found


def test_batches_of_lines_have_the_bytes_of_one_run(folder: Path, plain: pophood.LM) -> None:
    """However the lines are divided, and whether a column has texts or bytes."""
    lines = [{name: x for name, x in line.items() if name != "adapters"} for line in mixed(plain, 24, seed=7)]
    data = written([*lines, "no JSON"]).splitlines()
    wanted = answered(plain, [*lines, "no JSON"])
    step = RayLines(str(folder), defaults=LineDefaults(seed=SEED), threads=1, together=4)
    for size, kind in ((3, bytes), (25, str)):
        rows = []
        for start in range(0, 25, size):
            part = [one.decode() if kind is str else one for one in data[start : start + size]]
            numbers = np.arange(start + 1, start + 1 + len(part))
            rows += rows_of(step({"line": np.array(part, object), "number": numbers}))
        assert [row["answer"].encode() + b"\n" for row in rows] == [encoded(one) for one in wanted]
        assert [row["number"] for row in rows] == list(range(1, 26))
        assert [row["failed"] for row in rows] == [False] * 24 + [True]
        assert sum(row["written"] for row in rows) == sum(one.get("new_tokens", 0) for one in wanted)
        assert all(row["read"] >= 0 for row in rows) and rows[0]["read"] > 0


def test_parts_of_a_batch_are_always_the_same(folder: Path) -> None:
    """Ray computes a part anew by its place among the others."""
    step = RayLines(str(folder), together=3)
    lines = [json.dumps({"prompt": "a", "max_tokens": 1 + i % 5}) for i in range(8)]
    for _ in range(2):
        sizes = [len(part["answer"]) for part in step({"line": lines, "number": range(8)})]
        assert sizes == [3, 3, 2]


def test_an_actor_answers_a_line_again(folder: Path) -> None:
    """A custom_id that comes again is told by who sees all lines; here the line may be a retry."""
    step = RayLines(str(folder), defaults=LineDefaults(seed=SEED))
    body = {"prompt": "the cat", "max_tokens": 3}
    line = json.dumps({"custom_id": "a", "url": "/v1/completions", "body": body})
    one, other = (rows_of(step({"line": [line], "number": [4]})) for _ in range(2))
    assert one[0]["answer"] == other[0]["answer"] and not one[0]["failed"]
    later = rows_of(step({"line": [line], "number": [5]}))
    assert not later[0]["failed"] and later[0]["answer"] != one[0]["answer"]


def test_pipelines_without_numbers_and_without_the_column(folder: Path) -> None:
    step = RayLines(str(folder))
    first, second = rows_of(step({"line": ['{"prompt": "a", "max_tokens": 9}'] * 2}))
    assert first["answer"] == second["answer"] and json.loads(first["answer"])["line"] == 0
    with pytest.raises(BadInput, match="the batch has the columns text; wanted `line`, and perhaps"):
        list(step({"text": ["a"]}))


# Order -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), unique=True), st.randoms(use_true_random=False))
def test_every_answer_leaves_once_and_in_order(numbers: list[int], chance: Any) -> None:
    numbers.sort()
    order, left = InOrder(), []
    for number in numbers:
        order.expect(number)
    arriving = numbers + [number for number in numbers if chance.random() < 0.5]
    chance.shuffle(arriving)
    for number in arriving:
        order.add({"line": number})
        left += [record["line"] for record in order.ready()]
    assert left == numbers and order.next is None
    assert not any(order.add({"line": number}) for number in numbers)


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 9), st.integers(1, 64))
def test_blocks_hold_every_line(lines: int, actors: int, together: int) -> None:
    sizes = list(block_sizes(lines, actors, together))
    assert sum(sizes) == lines and all(size > 0 for size in sizes)
    assert sizes == sorted(sizes, reverse=True) and max(sizes, default=0) <= 16 * together


def test_answers_that_need_no_model(plain: pophood.LM) -> None:
    """They are those that a model gives."""
    model = BatchModel(plain, LineDefaults(seed=SEED))
    again = {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "a"}}
    early_ids, ids = CustomIds(), CustomIds()
    lines = [
        *source_of([again, {"prompt": "a"}, "oops", {"custom_id": "b"}, again, {"id": "a", "prompt": "b"}])
    ]
    lines.append(InputLine(9, None, MOST_BYTES + 1, "ab"))
    told = [early_answer(line, SEED, early_ids) for line in lines]
    assert [one is not None for one in told] == [False, False, False, False, True, False, True]
    for line, early in zip(lines, told, strict=True):
        wanted = read_line(line, model, ids)
        assert early is None or early == wanted


# The same model on all machines ----------------------------------------------------------------------------


def test_digests_are_kept_until_a_file_changes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name, text in (("config.json", "{}"), ("model.safetensors", "abc"), (PROVENANCE, "1"), ("x.py", "")):
        (model / name).write_text(text)
    found = file_digests(model)
    assert found.keys() == {"config.json", "model.safetensors"}
    assert found["model.safetensors"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def unread(*_: object) -> Any:
        raise AssertionError("the file is read again")

    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", unread)
        assert file_digests(model) == found
    (model / "model.safetensors").write_text("abd")
    changed = file_digests(model)
    assert changed["config.json"] == found["config.json"]
    assert differing_file("tiny", found, changed) == (
        f"model.safetensors of tiny: sha256 {found['model.safetensors']} here, "
        f"{changed['model.safetensors']} there"
    )
    (home / KEPT).write_text("[]")
    assert file_digests(model) == changed


def test_the_name_of_a_file_of_a_model_does_not_matter(home: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert file_digests(tmp_path / "a.gguf") == file_digests(tmp_path / "b.gguf")
    with pytest.raises(BadFile, match=r"none\.gguf: cannot be read"):
        file_digests(tmp_path / "none.gguf")


def test_fetching_a_model_again_does_not_make_it_another(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("abc")
    (tmp_path / PROVENANCE).write_text('{"fetched": "2026-01-01"}')
    before = weights_digest(tmp_path)
    (tmp_path / PROVENANCE).write_text('{"fetched": "2026-01-02"}')
    assert weights_digest(tmp_path) == before


def test_a_report_needs_no_weights(home: Path, folder: Path, plain: pophood.LM) -> None:
    report, whole = examine(RayModel(str(folder))), report_of(plain)
    assert isinstance(report, NodeReport) and report.files == whole.files
    assert replace(report.facts, model="") == replace(whole.facts, model="")
    report.check(whole)
    said = examine(RayModel("no/model"))
    assert isinstance(said, str) and "no/model" in said


def test_what_differs_between_machines_is_named(home: Path, plain: pophood.LM) -> None:
    here = replace(report_of(plain), host="here")
    file = next(iter(here.files))
    other = replace(here, host="there", files={**here.files, file: "ab"})
    with pytest.raises(
        BadFile, match=f"^there: {file} of .*: sha256 {here.files[file]} here, ab there: copy"
    ):
        here.check(other)
    other = replace(here, host="there", facts=replace(here.facts, version="9"))
    with pytest.raises(
        BadInput, match=r"^there: version is '9', and '.*' here .*: answers would differ; install"
    ):
        here.check(other)
    other = replace(here, host="there", facts=replace(here.facts, adapters=[["a", 1.0, "cd"]]))
    with pytest.raises(BadInput, match=r"^there: adapters is .*copy the adapters of this machine"):
        here.check(other)
    here.check(replace(here, host="there", facts=replace(here.facts, seed=9, created=3, model="/x")))


def test_an_actor_on_another_machine_compares(home: Path, folder: Path, plain: pophood.LM) -> None:
    driver = report_of(plain)
    RayLines(str(folder), driver=driver)
    with pytest.raises(BadFile, match="missing there"):
        RayLines(str(folder), driver=replace(driver, files={**driver.files, "more.json": "ab"}))


def test_the_name_by_which_others_find_the_model(
    folder: Path, plain: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert RayModel.of(pophood.load(folder.name), "auto", "f32").name == str(folder)
    plain = pophood.load(folder, weights=False)
    plain.name = "smollm2"
    assert RayModel.of(plain, "q8", "auto") == RayModel("smollm2", "q8", "auto", 128)


# Without Ray, and before it is imported --------------------------------------------------------------------


def run_python(code: str, **environment: str) -> str:
    done = processes.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return str(done.stdout)


def test_the_class_is_imported_without_ray() -> None:
    hidden = "import sys; sys.modules['ray'] = sys.modules['pyarrow'] = None\n"
    assert run_python(f"{hidden}from pophood.batch.cluster import RayLines, driver; print(1)") == "1\n"


def test_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        NotFound, match=r"^--ray needs ray, pyarrow, not installed here: pip install 'pophood\["
    ):
        require_ray()


def test_ray_counts_no_uses(tmp_path: Path) -> None:
    """Ray reads the variable when it is imported, and so do the processes that it starts."""
    for name, code in {
        "pyarrow/__init__": "",
        "ray/__init__": "import os; print(os.environ.get('RAY_USAGE_STATS_ENABLED'))",
        "ray/data": "",
        "ray/util/__init__": "",
        "ray/util/scheduling_strategies": "",
    }.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    code = "from pophood.batch.cluster import driver; print('imported'); driver._ray()"
    said = run_python(code, PYTHONPATH=str(tmp_path), RAY_USAGE_STATS_ENABLED="1")
    assert said.splitlines() == ["imported", "0"]
