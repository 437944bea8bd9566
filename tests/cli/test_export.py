"""`pophood export`: its output, its refusals, and the base model found from an adapter's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pophood.adapters.peft import read_adapter
from pophood.cli.app import pophood
from pophood.export.adapter_writers import write_adapter
from pophood.model.bundle import open_bundle
from tests.export.adapters import random_adapter, same
from tests.tiny import tiny_folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "base", "llama", n_layer=1)


@pytest.fixture
def tuned(tmp_path: Path, base: Path) -> Path:
    from dataclasses import replace

    config = open_bundle(base).config
    adapter = replace(random_adapter(config), base={"name": str(base)})
    write_adapter(tmp_path / "tuned", adapter, config, "{{ messages }}")
    return tmp_path / "tuned"


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(pophood, ["export", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_a_model_with_an_adapter(tmp_path: Path, base: Path, tuned: Path) -> None:
    code, out, err = run(base, "--adapter", f"{tuned}:0.5", "--to", tmp_path / "x.gguf", "--type", "q8_0")
    assert (code, out.splitlines()[0][-len("q8_0, 0.1 MB") :]) == (0, "q8_0, 0.1 MB")
    assert "KL" in out
    assert "bound 0.03" in out
    assert "writing q8_0" in err
    written = open_bundle(tmp_path / "x.gguf")
    assert written.chat_template is not None
    assert written.chat_template.source == "{{ messages }}"
    code, out, _ = run(tuned, "--to", tmp_path / "x", "--json", "--threads", 1)
    said = json.loads(out)
    assert (code, said["proof"]["bits_equal"], said["adapters"][0]["scale"]) == (0, True, 1.0)
    assert said["path"] == str(tmp_path / "x")


def test_an_adapter_alone(tmp_path: Path, base: Path, tuned: Path) -> None:
    code, out, _ = run(base, "--adapter", tuned, "--peft", "--to", tmp_path / "again")
    assert (code, "adapter, peft" in out, "every matrix changes" in out) == (0, True, True)
    one, other = read_adapter(tuned), read_adapter(tmp_path / "again")
    assert same(one, other)
    assert (tmp_path / "again" / "chat_template.jinja").read_text(encoding="utf-8") == "{{ messages }}"
    code, out, err = run(base, "--adapter", tuned, "--peft", "--to", tmp_path / "again.gguf")
    assert (code, "adapter, gguf" in out, "note:" in err) == (0, True, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peft", "--ollama"], "give one of them"),
        (["--peft"], "--peft writes one adapter, got 0"),
        (["--type", "q8_0"], "name a .gguf file"),
        (["--adapter", "TUNED:0.5", "--peft"], "leave the scale out"),
    ],
)
def test_what_is_refused(tmp_path: Path, base: Path, tuned: Path, words: list[str], message: str) -> None:
    given = [word.replace("TUNED", str(tuned)) for word in words]
    code, out, err = run(base, "--to", tmp_path / "x", *given)
    assert (code, out, message in err) == (2, "", True), err
    assert not (tmp_path / "x").exists()
