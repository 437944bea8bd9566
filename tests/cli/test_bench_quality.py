"""`pophood bench --quality`: text and JSON, another file to compare with, refusals in one line, Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pophood import load
from pophood.bench.quality import Comparison
from tests.cli.conftest import Program
from tests.tiny import tiny_gguf

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 8


@pytest.fixture
def notes(tmp_path: Path) -> str:
    (tmp_path / "notes.txt").write_text(TEXT, encoding="utf-8")
    return "notes.txt"


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("quality") / "q8_0.gguf", "gpt2", quantised="Q8_0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("quality") / "f32.gguf", "gpt2")


def test_text_and_json_have_the_same_figures(program: Program, blocks: Path, notes: str) -> None:
    done = program("bench", str(blocks), "--quality", notes)
    assert done.code == 0, done.said
    lines = done.text.splitlines()
    assert lines[0].startswith(f"{blocks} at auto beside f32, over ") and lines[0].endswith("of notes.txt")
    assert [line.split(":")[0] for line in lines[2:]] == [
        "KL divergence",
        "Flipped tokens",
        "Perplexity",
        "Weights",
    ]
    assert any(line.startswith("measuring, 0 of ") for line in done.said), "progress from the first second"
    found = json.loads(program("bench", "-m", str(blocks), "--quality", notes, "--json", "-t", "1").text)
    assert found["text"] == notes and found["complete"] is True
    assert f"{found['kl_mean']:.3g} nats per token on average" in lines[2]
    assert f"{found['this']['perplexity']:.2f} beside {found['other']['perplexity']:.2f}" in lines[4]
    assert 0 < found["kl_mean"] < found["kl_99"] < 1


def test_another_file_is_the_reference_at_f32(
    program: Program, blocks: Path, whole: Path, notes: str
) -> None:
    words = ("--quality", notes, "--against", str(whole), "--tokens", "100", "--json")
    done = program("bench", str(blocks), *words)
    assert done.code == 0, done.said
    found = json.loads(done.text)
    ids = load(whole).tokenize(TEXT)[:100]
    assert found["positions"] == 99 and found["other"]["precision"] == "f32"
    assert found["other"]["perplexity"] == pytest.approx(load(whole).score(ids).perplexity, rel=1e-5)
    assert found["this"]["perplexity"] == pytest.approx(load(blocks).score(ids).perplexity, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--rounds", "2"), "--rounds is for timing: leave it out beside --quality"),
        (("--no-start",), "--no-start is for timing"),
        (("--save", "a.svg"), "--save is for timing"),
        (("--csv",), "--csv is for timing"),
        (("--threads", "1,2"), "--quality takes one number of threads"),
        (("--tokens", "1"), "tokens is 1; wanted at least 2"),
        (("--precision", "f32"), "is computed at f32 either way: choose a --precision"),
        (("--precision", "q8", "--against", "q8"), "is computed at q8 either way"),
        (("--against", "none.gguf"), "none.gguf"),
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_one_line(
    program: Program, blocks: Path, notes: str, words: tuple[str, ...], complaint: str
) -> None:
    done = program("bench", str(blocks), "--quality", notes, *words)
    assert done.code != 0 and done.out == b"", done.text
    assert complaint in done.said[-1] and done.said[-1].startswith("pophood: ")


def test_against_needs_a_text(program: Program, blocks: Path) -> None:
    done = program("bench", str(blocks), "--against", "f32")
    assert done.code == 2 and "--against belongs to --quality FILE" in done.said[-1]


def test_another_vocabulary_is_refused(program: Program, blocks: Path, notes: str, tmp_path: Path) -> None:
    other = tiny_gguf(tmp_path / "llama.gguf", "llama")
    done = program("bench", str(blocks), "--quality", notes, "--against", str(other))
    assert done.code == 2 and "only models with the same vocabulary can be compared" in done.said[-1]


def test_a_text_in_another_encoding_is_refused_before_a_model_is_loaded(
    program: Program, blocks: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_bytes(TEXT.encode("utf-16"))
    done = program("bench", str(blocks), "--quality", "notes.txt")
    assert done.code == 2 and "is UTF-16; wanted UTF-8" in done.said[-1] and len(done.said) == 1


def test_ctrl_c_prints_the_figures_so_far(
    program: Program, blocks: Path, notes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Comparison._compare

    def interrupted(self: Comparison, ids: list[int]) -> None:
        if self._parts:
            raise KeyboardInterrupt
        compare(self, ids)

    monkeypatch.setattr(Comparison, "_compare", interrupted)
    done = program("bench", str(blocks), "--quality", notes, "--json")
    assert done.code == 130 and "stopped; the figures so far:" in done.said
    found = json.loads(done.text)
    assert found["complete"] is False and found["positions"] == 127, "one window of the model's context"
