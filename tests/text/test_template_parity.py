"""Templates that compute with the text of messages: each renders as in transformers.

Nothing that pophood knows about a message's text may be visible to a template: not when it measures, compares,
cuts, escapes or prints it. The authority is transformers' `apply_chat_template`.
"""
# ruff: noqa: E501 - templates are easier to read in one line

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pophood.errors import BadInput, PophoodError
from pophood.text.chat.chat_template import ChatTemplate, encode_chat
from pophood.text.load import load_text_folder
from pophood.text.tokenizer import Tokenizer
from tests.text.more_templates import LOOKS, TEXTS
from tests.text.templates import TEMPLATES, TOOLS, assistant, user
from tests.text.vocabularies import library_tokenizer

BOS, EOS = "<|im_start|>", "<|im_end|>"


@pytest.fixture(scope="module")
def reference() -> Any:
    """Return transformers' tokenizer for the same vocabulary."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=library_tokenizer("qwen2"), bos_token=BOS, eos_token=EOS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("qwen2")
    library_tokenizer("qwen2").save(str(folder / "tokenizer.json"))
    return load_text_folder(folder).tokenizer


def expected(reference: Any, source: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """Return the text that transformers renders, or None if it fails."""
    try:
        return str(reference.apply_chat_template(messages, chat_template=source, tokenize=False, **options))
    except Exception:
        return None


def rendered(source: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    try:
        return ChatTemplate(source, BOS, EOS).render(messages, add_generation_prompt=False, **options)
    except BadInput:
        return None


@pytest.mark.parametrize("look", LOOKS)
def test_a_template_that_looks_closely_sees_the_message_itself(look: str, reference: Any) -> None:
    source = "{% for m in messages %}[" + LOOKS[look] + "]{% endfor %}"
    rendered_some = False
    for text in TEXTS:
        messages = [user(text), assistant(text[::-1])]
        found = rendered(source, messages)
        assert found == expected(reference, source, messages), text
        rendered_some |= found is not None
    assert rendered_some


@pytest.mark.parametrize("look", LOOKS)
def test_no_look_makes_a_message_s_text_special(look: str, tokenizer: Tokenizer) -> None:
    """The ids spell the rendered text without special tokens, since these templates write none."""
    source = "{% for m in messages %}[" + LOOKS[look] + "]{% endfor %}"
    special = tokenizer.specials.keys()
    for text in TEXTS:
        messages = [user(text)]
        try:
            ids = encode_chat(tokenizer, ChatTemplate(source), messages)
        except BadInput:
            continue  # it omits the message, or cannot render it
        own = ChatTemplate(source).render([user("")]).count("<|im_end|>")
        assert sum(id_ in special for id_ in ids) <= own, text
        assert tokenizer.decode(ids, special=True) == ChatTemplate(source).render(messages), text


MORE: dict[str, list[dict[str, Any]]] = {
    "calls": [
        user("Weather?"),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "arguments": {"city": "Osl\u00f6<|im_end|>", "n": None, "<k>": 1.5},
                    },
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": '{"rain": true}'},
        assistant("It rains."),
    ],
    "reasoning": [
        user("Sum?"),
        {"role": "assistant", "content": "Four", "reasoning_content": "2 + 2"},
        user("And?"),
        {"role": "assistant", "content": "Five", "thinking": "2 + 3"},
        {"role": "assistant", "content": "Six", "reasoning": "2 + 4"},
    ],
    "extras": [
        {
            "role": "user",
            "content": "Hi",
            "name": "Ann",
            "weight": 0,
            "flags": [True, None, {"a": "<|im_end|>"}],
        },
    ],
}
READS_MORE = {
    **{name: TEMPLATES[name] for name in ("turns", "macros and tools", "thinking", "roles as tokens")},
    "json": "{% for m in messages %}{{ m | tojson }}{% endfor %}",
    "reasoning": "{% for m in messages %}{{ m.content }}{% if m.reasoning_content is defined %}<think>"
    "{{ m.reasoning_content }}</think>{% endif %}{{ m.thinking | default('-') }}{% endfor %}",
    "calls": "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}("
    "{% for k, v in c.function.arguments | items %}{{ k }}={{ v | tojson }}, {% endfor %}){{ c.id }}{% endfor %}"
    "{{ m.content }}{% endfor %}",
    "extras": "{% for m in messages %}{{ m.name }}{{ m.weight }}{{ m.flags | tojson }}{{ m.content }}{% endfor %}",
}


@pytest.mark.parametrize(("style", "talk"), list(itertools.product(READS_MORE, MORE)))
def test_calls_reasoning_and_other_keys(style: str, talk: str, reference: Any) -> None:
    for tools in (None, TOOLS):
        found = rendered(READS_MORE[style], MORE[talk], tools=tools)
        assert found == expected(reference, READS_MORE[style], MORE[talk], tools=tools)


@pytest.mark.parametrize("style", [*TEMPLATES])
def test_keys_and_arguments_of_a_call_are_never_special(style: str, tokenizer: Tokenizer) -> None:
    """The call of a model or of a record may contain anything, in its keys too."""
    bad = "x<|im_end|>y"
    call = {"type": "function", "function": {"name": f"w{bad}", "arguments": {bad: [bad, {bad: bad}]}}}
    talk = [user("Hi"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    template = ChatTemplate(TEMPLATES[style], BOS, EOS)
    try:
        ids = encode_chat(tokenizer, template, talk)
    except PophoodError as error:
        assert "neither the name nor the arguments of the call" in str(error)
        return
    harmless = encode_chat(
        tokenizer,
        template,
        [
            user("Hi"),
            {
                **talk[1],
                "tool_calls": [
                    {"type": "function", "function": {"name": "w", "arguments": {"a": ["b", {"c": "d"}]}}}
                ],
            },
        ],
    )
    special = tokenizer.specials
    assert [i for i in ids if i in special] == [i for i in harmless if i in special]
    assert tokenizer.decode(ids, special=True) == template.render(talk)
