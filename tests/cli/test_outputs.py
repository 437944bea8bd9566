"""The layout of generated text: a single sample without a label, several with labels as in the talk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pophood.cli.commands.demo import FirstWord, first_words
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.outputs import Outputs


def token(sample: int, text: str, finish: str | None = None, p: float = 0.5) -> Any:
    return SimpleNamespace(sample=sample, text=text, finish=finish, probability=p, final_probability=p)


def test_one_sample_is_the_prompt_and_its_continuation(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = Outputs(Console(), "The capital", 1)
    for text in (" of", " Spain", ""):
        outputs.add(token(0, text))
        assert capsys.readouterr().out.endswith(text)
    outputs.add(token(0, ".", "length"))
    outputs.close()
    assert capsys.readouterr().out == ".\n"


def test_several_samples_come_in_order_though_computed_together(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = Outputs(Console(), "A", 3)
    assert capsys.readouterr().out == "Output  1: A"
    outputs.add(token(0, " b"))
    outputs.add(token(1, " c", "stop"))
    outputs.add(token(2, " d"))
    assert capsys.readouterr().out == " b"
    outputs.add(token(0, " e", "length"))
    assert capsys.readouterr().out == " e\nOutput  2: A c\nOutput  3: A d"
    outputs.add(token(2, " f", "length"))
    outputs.close()
    assert capsys.readouterr().out == " f\n"
    assert outputs.count == 5


def test_what_was_waiting_is_shown_when_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = Outputs(Console(), "A", 12)
    for sample in range(12):
        outputs.add(token(sample, f" {sample}"))
    outputs.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Output {i + 1:>2}: A {i}" for i in range(12)]


def test_no_prompt_and_silence(capsys: pytest.CaptureFixture[str]) -> None:
    bare = Outputs(Console(), "A", 1, show_prompt=False)
    bare.add(token(0, " b", "stop"))
    bare.close()
    assert capsys.readouterr().out == " b\n"
    silent = Outputs(Console(), "A", 2, silent=True)
    silent.add(token(1, " b", "stop"))
    silent.close()
    assert capsys.readouterr().out == ""
    assert silent.tokens[1][0].text == " b"


def test_a_first_word_is_as_likely_as_its_tokens_together() -> None:
    outputs = [
        [token(0, " Mad", p=0.5), token(0, "rid", p=0.5), token(0, ".", p=0.1)],
        [token(1, " a", p=0.125), token(1, " city", p=0.1)],
        [token(2, " Mad", p=0.5), token(2, "rid", p=0.5)],
        [token(3, "", "stop", p=0.25)],
    ]
    assert first_words(outputs) == [
        FirstWord("Madrid", 2, 0.25, 0.25),
        FirstWord("a", 1, 0.125, 0.125),
        FirstWord("(nothing)", 1, 1.0, 1.0),
    ]
