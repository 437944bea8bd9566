"""`pophood chat --template-arg`, and thoughts of the model in a conversation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pophood.cli.options.prompt import template_variables
from pophood.errors import BadInput
from tests.cli.conftest import Program
from tests.tiny_thinker import OPENS, thinker

ONE = ("-n", "1", "--seed", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thinker(tmp_path_factory.mktemp("models") / "thinker")


def test_a_variable_reaches_the_template(program: Program, model: Path) -> None:
    off = program("chat", "Hi", "-m", str(model), *ONE, "-v", "--template-arg", "enable_thinking=false")
    assert off.code == 0 and "</think>" in "\n".join(off.said)
    on = program("chat", "Hi", "-m", str(model), *ONE, "-v", "--template-arg", "enable_thinking=true")
    assert on.code == 0 and "</think>" not in "\n".join(on.said)
    piped = program(
        "chat", "-m", str(model), *ONE, "-v", "--template-arg", "enable_thinking=false", stdin=b"Hi\nHi\n"
    )
    assert piped.code == 0 and "\n".join(piped.said).count("</think>") == 2


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            "enable_thinkin=false",
            "the chat template reads no variable 'enable_thinkin'; it reads enable_thinking",
        ),
        ("tools=[]", "reads no variable 'tools'"),
        ("messages=[]", "'messages' is set by the conversation"),
        ("enable_thinking", "wanted NAME=VALUE, as in enable_thinking=false"),
        ("=false", "wanted NAME=VALUE"),
        ("enable-thinking=false", "wanted NAME=VALUE"),
        ("enable_thinking=False", "this would be text; write false, as in JSON"),
        ("enable_thinking=None", "this would be text; write null, as in JSON"),
        ("enable_thinking={", "the value is not JSON"),
        ('enable_thinking="x', "the value is not JSON"),
    ],
)
def test_what_is_no_variable_is_refused(program: Program, model: Path, typed: str, words: str) -> None:
    done = program("chat", "Hi", "-m", str(model), *ONE, "--template-arg", typed)
    assert done.code == 2 and words in done.said[-1] and done.out == b""


def test_values_are_json_or_text() -> None:
    typed = [
        "a=false",
        "b=3",
        "c=high",
        "d=[1, null]",
        'e={"x": "y"}',
        'f="3"',
        "g=",
        "h=x=y",
        "i=2026-12-01",
    ]
    expected = {
        "a": False,
        "b": 3,
        "c": "high",
        "d": [1, None],
        "e": {"x": "y"},
        "f": "3",
        "g": "",
        "h": "x=y",
    }
    assert template_variables(typed) == expected | {"i": "2026-12-01"}
    with pytest.raises(BadInput, match="sets 'a' twice"):
        template_variables(["a=1", "a=2"])


def test_a_thought_is_shown_and_later_cut(program: Program, model: Path, tmp_path: Path) -> None:
    """A model that can only close thoughts: the tag is shown and saved, but left out of the next prompt."""
    forced = ("-n", "2", "--logit-bias", "</think>=1000", "-v")
    done = program("chat", "-m", str(model), *forced, stdin=b"Hi\nAgain\n/save talk.json\n")
    assert done.text.splitlines()[:2] == ["</think></think>"] * 2
    saved = json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"]
    assert saved[1] == {"role": "assistant", "content": "</think></think>"}
    assert "</think>" not in "\n".join(done.said), "the template cuts the thoughts of earlier turns"


def test_a_thought_that_the_prompt_opens_is_shown_from_its_tag(program: Program, tmp_path: Path) -> None:
    folder = thinker(tmp_path / "m", OPENS)
    forced = ("-n", "1", "--logit-bias", "</think>=1000")
    done = program("chat", "Hi", "-m", str(folder), *forced)
    assert done.text == "<think>\n</think>\n"
    told = json.loads(program("chat", "Hi", "-m", str(folder), *forced, "--json", "-q").text)
    assert told["messages"][1]["content"] == "<think>\n</think>"
    assert told["outputs"][0]["completion"] == "</think>"
