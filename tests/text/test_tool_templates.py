"""Functions in chat templates: rendered as transformers does, whichever form the arguments of calls have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pophood.openai.tools.formats import FORMATS, call_format
from pophood.text.chat.chat_template import ChatTemplate
from tests.text.test_template_parity import BOS, EOS, reference
from tests.text.tool_templates import PLAIN, TOOL_TEMPLATES, XML

__all__ = ["reference"]  # a fixture

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ARGUMENTS: list[dict[str, Any]] = [{}, {"city": "Z\u00fcrich"}, {"a": [1, {"b": None}], "c": 'q"\\<'}]


def talk(arguments: Any) -> list[dict[str, Any]]:
    function = {"name": "get_weather", "arguments": arguments}
    return [
        {"role": "user", "content": "Is it raining?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "abcdefghi", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "Yes"},
        {"role": "user", "content": "Thanks"},
    ]


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_functions_are_rendered_as_in_transformers(
    reference: Any, name: str, arguments: dict[str, Any]
) -> None:
    template = ChatTemplate(TOOL_TEMPLATES[name], BOS, EOS)
    for tools in (None, [TOOL]):
        for messages in (talk(arguments), talk(arguments)[:1]):
            expected = reference.apply_chat_template(
                messages,
                tools=tools,
                chat_template=TOOL_TEMPLATES[name],
                tokenize=False,
                add_generation_prompt=True,
            )
            assert template.render(messages, tools=tools) == expected
        written = template.render(talk(json.dumps(arguments, ensure_ascii=False)), tools=tools)
        assert written == template.render(talk(arguments), tools=tools)


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_arguments_that_are_no_json_are_text(name: str) -> None:
    for broken in ("{", "[1]", "none", ""):
        text = ChatTemplate(TOOL_TEMPLATES[name], BOS, EOS).render(talk(broken), tools=[TOOL])
        assert broken in text or json.dumps(broken) in text


def test_a_template_that_takes_text_gets_it_as_it_is() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ '<' + c.function.arguments + '>' }}"
        "{% endfor %}{% endfor %}"
    )
    odd = '{"b":1,  "a": "\\u00e9"}'
    assert ChatTemplate(source).render(talk(odd)) == f"<{odd}>"
    encoded = source.replace("c.function.arguments", "(c.function.arguments | tojson)")
    assert ChatTemplate(encoded).render(talk(odd)) == '<{"b": 1, "a": "é"}>'


def test_the_format_is_recognised() -> None:
    for name, source in TOOL_TEMPLATES.items():
        assert call_format(source) is FORMATS[name]
    assert call_format(PLAIN) is None and call_format(XML) is None
    others = (
        "<tool_call>{{ c.name }}<arg_key>{{ c.arguments }}</tool_call>",
        '<|tool_call|>[{"name": "f", "arguments": {}}] parameters',
        '<\uff5ctool\u2581calls\u2581begin\uff5c>{"name": x} parameters',
        'functools[{"name": "f", "parameters": {}}]',
    )
    assert [call_format(source) for source in others] == [None] * 4
