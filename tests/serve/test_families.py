"""`pophood serve` with every family: its answers are what the library says (small: one conversation each)."""

from __future__ import annotations

from pathlib import Path

import pytest

import pophood
from tests.made_families import MADE, made_folder
from tests.serve.command import command
from tests.serve.wire import request

USUAL = (
    "gemma3",
    "gpt_neox",
)  # one with windows and rotations of two kinds, one with a parallel feed-forward
FAMILIES = [pytest.param(name, marks=() if name in USUAL else pytest.mark.full) for name in MADE]
QUESTION = [{"role": "user", "content": "The sun sets over the hills, and the old stones wait. Where?"}]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_librarys(family: str, tmp_path: Path) -> None:
    folder = made_folder(tmp_path / family, family)
    lm = pophood.load(folder, threads=1)
    expected = "".join(token.text for token in lm.chat(QUESTION, max_tokens=20, temperature=0))
    with command(folder, "--threads", "1", home=tmp_path / "home") as running:
        asked: dict[str, object] = {"model": family, "messages": QUESTION, "max_tokens": 20, "temperature": 0}
        for _ in range(2):  # the second time with the prefix that the first one left
            answer = request(running.port, "/v1/chat/completions", key=running.key, body=asked)
            assert answer.status == 200, answer.json
            assert answer.json["choices"][0]["message"]["content"] == expected
        again = [*QUESTION, {"role": "assistant", "content": expected}, {"role": "user", "content": "Why?"}]
        answer = request(
            running.port, "/v1/chat/completions", key=running.key, body=asked | {"messages": again}
        )
        told = "".join(token.text for token in lm.chat(again, max_tokens=20, temperature=0))
        assert answer.json["choices"][0]["message"]["content"] == told
