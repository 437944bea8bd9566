"""The system text of a chat (cleared, rejected by the template, merged), and turns that fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.tiny import tiny_folder

SHORT = ("-n", "3", "--seed", "1")
TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
# Templates without a system message: like Gemma's, like Mistral's first ones, ones that ignore it or fail.
TEMPLATES = {
    "refused by name": "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + TURNS,
    "alternation": "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% endfor %}" + TURNS,
    "left out": TURNS.replace("{% for message in messages %}", "{% for message in messages if "
    "message['role'] != 'system' %}"),
    "an error of Jinja": "{{ {'user': 1, 'assistant': 2}[messages[0]['role']] + 0 }}" + TURNS,
}  # fmt: skip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a chat model for each template."""
    made = {}
    for number, (name, template) in enumerate(TEMPLATES.items()):
        made[name] = tiny_folder(tmp_path_factory.mktemp("models") / f"model{number}", "qwen2")
        (made[name] / "chat_template.jinja").write_text(template, encoding="utf-8")
    return made


def answers(said: list[str]) -> int:
    return len([line for line in said if line.endswith("of context]")])


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_system_text_that_the_template_does_not_take_is_taken_back(
    program: Program, models: dict[str, Path], template: str
) -> None:
    talk = b"/system Be kind\nHi\n/reset\nHi\n"
    done = program("chat", "-m", str(models[template]), *SHORT, stdin=talk)
    assert answers(done.said) == 2, "every later turn is answered"
    refusals = [line for line in done.said if "takes no system text" in line]
    assert len(refusals) == 1 and "--merge-system" in refusals[0]
    assert done.code == 1, "a turn of the pipe failed"


@pytest.mark.parametrize("template", TEMPLATES)
def test_merge_system_puts_it_before_the_first_user_message(
    program: Program, models: dict[str, Path], template: str
) -> None:
    talk = b"/system Be kind\nHi\n/save talk.json\n/reset\nHi\n"
    done = program("chat", "--merge-system", "-v", "-m", str(models[template]), *SHORT, stdin=talk)
    assert done.code == 0 and answers(done.said) == 2
    told = "\n".join(done.said)
    assert told.count("<|im_start|>user\nBe kind\n\nHi<|im_end|>") == 2, "/reset keeps the system text"
    once = program(
        "chat", "Hi", "--system", "Be kind", "--merge-system", "-v", "-m", str(models[template]), *SHORT
    )
    assert once.code == 0 and "user\nBe kind\n\nHi<|im_end|>" in "\n".join(once.said)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_option_is_refused_before_anything_is_answered(
    program: Program, models: dict[str, Path], template: str
) -> None:
    for more in (("Hi",), ()):
        done = program(
            "chat", *more, "--system", "Be kind", "-m", str(models[template]), *SHORT, stdin=b"Hi\n"
        )
        assert done.code == 2 and done.out == b""
        assert "takes no system text" in done.said[-1] and "--merge-system" in done.said[-1]


def test_system_alone_clears(program: Program, talker: Path, tmp_path: Path) -> None:
    talk = b"/system\n/system Be kind\nHi\n/system\n/system\nHi\n/save talk.json\n/show\n"
    done = program("chat", "-m", str(talker), *SHORT, stdin=talk)
    assert done.code == 0
    cleared = [line for line in done.said if "system text" in line]
    assert [line.split(":")[0] for line in cleared] == [
        "there is no system text",
        "the system text applies from the next message on",
        "the system text is cleared; it was",
        "there is no system text",
    ]
    assert cleared[2].endswith("Be kind")
    messages = json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]
    assert "Be kind" not in done.text


def test_a_system_text_that_is_taken_is_replaced_whole(
    program: Program, talker: Path, tmp_path: Path
) -> None:
    talk = b"/system One\nHi\n/system Two\n/save talk.json\n"
    assert program("chat", "-m", str(talker), *SHORT, stdin=talk).code == 0
    messages = json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"]
    assert [m["content"] for m in messages if m["role"] == "system"] == ["Two"]


@pytest.mark.parametrize(
    "bad",
    [b"/hepl\n", b"caf\xe9\n", b"word " * 400 + b"\n", b"/save no/such/place.txt\n", b"/save\n"],
    ids=["command", "bytes", "length", "place", "name"],
)
def test_a_pipe_with_a_turn_that_failed_ends_with_1(program: Program, talker: Path, bad: bytes) -> None:
    done = program("chat", "-m", str(talker), *SHORT, stdin=b"Hi\n" + bad + b"Hi\n")
    assert answers(done.said) == 2, "the others are answered"
    assert done.code == 1
    assert [line for line in done.said if line.startswith("pophood: ")]


def test_merging_needs_a_system_text(program: Program, talker: Path) -> None:
    done = program("chat", "Hi", "--merge-system", "-m", str(talker))
    assert done.code == 2 and "add --system TEXT" in done.said[-1]
