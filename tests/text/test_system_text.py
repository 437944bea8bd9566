"""System messages: which templates support them, and how the text is merged for those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from pophood.errors import BadInput
from pophood.text.chat.chat_template import ChatTemplate, takes_system
from pophood.text.chat.messages import merge_system
from tests.text.templates import TEMPLATES, assistant, user

SYSTEM = {"role": "system", "content": "Be brief."}
REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ m.role ~ ': ' ~ m.content }}\n{% endfor %}"
)
LEAVES_OUT = "{% for m in messages if m.role != 'system' %}{{ m.role ~ ': ' ~ m.content }}\n{% endfor %}"
ON_REQUEST = (
    "{% for m in messages if m.role != 'system' or keep %}{{ m.role ~ ': ' ~ m.content }}\n{% endfor %}"
)


@pytest.mark.parametrize("style", ["turns", "system by default", "roles as tokens", "thinking"])
def test_templates_that_take_a_system_text(style: str) -> None:
    assert takes_system(ChatTemplate(TEMPLATES[style], "<s>", "</s>"))


@pytest.mark.parametrize(
    "source", [REFUSES, LEAVES_OUT, TEMPLATES["loop controls"], "{{ messages | length }}"]
)
def test_templates_that_refuse_it_or_leave_it_out(source: str) -> None:
    template = ChatTemplate(source)
    assert not takes_system(template)
    messages = merge_system([SYSTEM, user("Why?")])
    assert messages == [user("Be brief.\n\nWhy?")]
    assert "Be brief." in template.render(messages) or "length" in source


def test_the_variables_of_the_conversation_count() -> None:
    template = ChatTemplate(ON_REQUEST)
    assert not takes_system(template)
    assert takes_system(template, keep=True)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("Hi")], [user("Hi")]),
        (
            [SYSTEM, user("Hi"), assistant("Yes"), user("x")],
            [user("Be brief.\n\nHi"), assistant("Yes"), user("x")],
        ),
        ([SYSTEM, SYSTEM, user("Hi")], [user("Be brief.\n\nBe brief.\n\nHi")]),
        ([{"role": "system", "content": " \n"}, user("Hi")], [user("Hi")]),
        ([{"role": "developer", "content": "D"}, user("Hi")], [user("D\n\nHi")]),
        ([user("a"), assistant("b"), SYSTEM, user("c")], [user("a"), assistant("b"), user("Be brief.\n\nc")]),
        ([SYSTEM, assistant("Hello."), user("Hi")], [assistant("Hello."), user("Be brief.\n\nHi")]),
    ],
)
def test_the_text_goes_before_the_next_user_message(messages: Any, expected: Any) -> None:
    before = [dict(message) for message in messages]
    assert merge_system(messages) == expected
    assert messages == before, "the conversation itself is left as it is"


@pytest.mark.parametrize(
    "messages", [[SYSTEM], [user("Hi"), assistant("Yes"), SYSTEM], [SYSTEM, assistant("x")]]
)
def test_a_system_text_without_a_user_message_is_refused(messages: Any) -> None:
    with pytest.raises(BadInput, match="no user message follows"):
        merge_system(messages)


def test_other_keys_of_the_message_stay() -> None:
    assert merge_system([SYSTEM, {**user("Hi"), "name": "Ann"}]) == [
        {**user("Be brief.\n\nHi"), "name": "Ann"}
    ]


@pytest.mark.parametrize("content", [5, None, ["x"], {"text": "x"}])
def test_what_is_no_text_is_refused(content: object) -> None:
    with pytest.raises(BadInput, match="message 1 "):
        merge_system([{"role": "system", "content": content}, user("Hi")])
    with pytest.raises(BadInput, match="message 2 "):
        merge_system([SYSTEM, user(content)])
