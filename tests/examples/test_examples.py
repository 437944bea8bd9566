"""The programs of examples/ run, print what their tutorials show, and stand in the tutorials."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import pophood
from tests import processes
from tests.conftest import ROOT
from tests.contracts.test_readme import agrees, environment
from tests.serve.command import command
from tests.tiny import tiny_folder

EXAMPLES = ROOT / "examples"
TUTORIALS = ROOT / "docs" / "tutorials"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run(
    name: str,
    *arguments: str,
    cwd: Path,
    smollm2: Path | None = None,
    said: str = "",
    settings: dict[str, str] | None = None,
) -> str:
    """Run a program as a person does, and return what it printed."""
    result = processes.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=cwd,
        env=(os.environ if smollm2 is None else environment(smollm2)) | (settings or {}),
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


def shown(name: str) -> str:
    """Return what the tutorial shows below its command."""
    page = (TUTORIALS / f"{name.replace('_', '-')}.md").read_text(encoding="utf-8")
    block = re.search(r"^```console\n\$ (.*?)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block is not None and block[1] == f"python examples/{name}.py"
    return block[2]


def test_each_program_has_its_tutorial_and_each_tutorial_its_program() -> None:
    assert len(NAMES) == 7
    index = (TUTORIALS / "index.md").read_text(encoding="utf-8")
    for name in NAMES:
        page = TUTORIALS / f"{name.replace('_', '-')}.md"
        assert f"\n[examples/{name}.py](../../examples/{name}.py)\n" in page.read_text(encoding="utf-8")
        assert f"]({page.name})" in index
    assert len(list(TUTORIALS.glob("*.md"))) == 8


def test_chat_loop(smollm2: Path, tmp_path: Path) -> None:
    wanted = shown("chat_loop")
    questions = [line.removeprefix("> ") for line in wanted.splitlines() if line.startswith("> ")]
    printed = run("chat_loop", cwd=tmp_path, smollm2=smollm2, said="\n".join([*questions, "", ""]))
    answers = [line for line in wanted.splitlines() if not line.startswith("> ")]
    assert printed == "".join(f"> {answer}\n" for answer in answers) + "> "


@pytest.mark.parametrize("name", ["batch_of_prompts", "next_token_table", "attention_picture"])
def test_a_program_prints_what_its_tutorial_shows(name: str, smollm2: Path, tmp_path: Path) -> None:
    printed = run(name, cwd=tmp_path, smollm2=smollm2)
    assert agrees(printed, shown(name)), printed
    if name == "attention_picture":
        assert (tmp_path / "attention.svg").read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.full
def test_export_to_gguf_prints_what_its_tutorial_shows(smollm2: Path, tmp_path: Path) -> None:
    printed = run("export_to_gguf", cwd=tmp_path, smollm2=smollm2)
    assert agrees(printed, shown("export_to_gguf")), printed
    assert (tmp_path / "exported-q8_0.gguf").is_file() and (
        tmp_path / "exported-q8_0.gguf.receipt.json"
    ).is_file()


def test_tune_an_adapter_and_merge_it_into_an_export(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", "llama", n_positions=128)
    text = (ROOT / "tests" / "data" / "tinyshakespeare" / "first-120000.txt").read_text(encoding="utf-8")
    (tmp_path / "plays.txt").write_text(text[:6000], encoding="utf-8")
    printed = run("tune_an_adapter", "plays.txt", str(model), "2", cwd=tmp_path)
    assert re.search(r"^step 2 of 2: loss \d", printed, re.MULTILINE)
    assert "validation loss" in printed and printed.endswith("the same as before: True\n")
    shutil.copytree(tmp_path / "tuned-lora", tmp_path / "kept")
    printed = run("export_to_gguf", str(model), "out.gguf", "kept", cwd=tmp_path)
    assert "tensors, divergence" in printed
    assert pophood.load(tmp_path / "out.gguf").config.n_layer == pophood.load(model).config.n_layer


def test_a_program_against_the_server(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", "qwen2", n_positions=256)
    with command(model, home=tmp_path / "home") as server:
        address = {"POPHOOD_URL": f"http://127.0.0.1:{server.port}", "POPHOOD_API_KEY": server.key}
        printed = run("program_against_the_server", cwd=tmp_path, settings=address)
    whole, tokens, streamed = printed.partition(" tokens\n")
    assert tokens and whole.rpartition(" ")[0] == streamed.removesuffix("\n")
