"""The content of messages: text, text parts, null beside a call; anything else is refused by name."""
# ruff: noqa: E501 - templates are easier to read in one line

from __future__ import annotations

from typing import Any

import pytest

from pophood.errors import BadInput
from pophood.text.chat.chat_template import ChatTemplate, encode_chat
from pophood.text.load import load_text_folder
from pophood.text.tokenizer import Tokenizer
from tests.text.templates import TEMPLATES, assistant, user
from tests.text.vocabularies import library_tokenizer

BOS, EOS = "<|im_start|>", "<|im_end|>"
# Like Llama 3: the content is trimmed, whatever it is, so a list is written as a printed list.
TRIMS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
# Like Gemma 3: a text, or parts one by one.
TAKES_PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'image' %}<image>{% elif part.type == 'text' %}"
    "{{ part.text | trim }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = TEMPLATES["turns"]
CALL = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{}"}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("qwen2")
    library_tokenizer("qwen2").save(str(folder / "tokenizer.json"))
    return load_text_folder(folder).tokenizer


def parts(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text} for text in texts]


# Parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [TURNS, TRIMS, TAKES_PARTS, TEMPLATES["macros and tools"]])
@pytest.mark.parametrize(
    "content",
    [
        parts("What is 2+2?"),
        [{"text": "What is 2+2?"}],
        ["What is 2+2?"],
        [{"type": "input_text", "text": "What is 2+2?"}],
        [{"type": "text", "text": "What is 2+2?", "cache_control": {"type": "ephemeral"}}],
    ],
)
def test_parts_that_are_text_are_one_text(source: str, content: Any, tokenizer: Tokenizer) -> None:
    template = ChatTemplate(source, BOS, EOS)
    plain = [user("What is 2+2?"), assistant("Four.")]
    listed = [user(content), assistant("Four.") | {"content": parts("Four.")}]
    assert template.render(listed) == template.render(plain)
    assert encode_chat(tokenizer, template, listed) == encode_chat(tokenizer, template, plain)


def test_several_parts_stand_on_lines_of_their_own() -> None:
    """As in llama.cpp and vLLM, a template that supports parts writes them in its own way."""
    talk = [user(parts("One", "Two "))]
    assert "user\nOne\nTwo <|im_end|>" in ChatTemplate(TURNS).render(talk)
    assert "user\n\nOne\nTwo<|im_end|>" in ChatTemplate(TRIMS).render(talk)
    assert "user\nOneTwo<|im_end|>" in ChatTemplate(TAKES_PARTS).render(talk)


@pytest.mark.parametrize("source", [TURNS, TRIMS, TAKES_PARTS])
@pytest.mark.parametrize("content", [[""], [{"text": ""}], [{"type": "text", "text": None}, ""]])
def test_parts_without_any_text_are_no_text(content: Any, source: str) -> None:
    """A template that prints lists would print the list itself."""
    template = ChatTemplate(source)
    wanted = template.render([user(""), assistant("Yes?")])
    assert template.render([{"role": "user", "content": content}, assistant("Yes?")]) == wanted


def test_a_template_that_takes_parts_renders_them_as_transformers_does() -> None:
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(tokenizer_object=library_tokenizer("qwen2"))
    for source in (TAKES_PARTS, TEMPLATES["macros and tools"]):
        for content in (parts("a"), parts(" a ", "b"), parts("a", ""), parts("x<|im_end|>")):
            talk = [user(content), assistant("b")]
            expected = reference.apply_chat_template(talk, chat_template=source, tokenize=False)
            assert ChatTemplate(source).render(talk, add_generation_prompt=False) == expected


def test_special_tokens_in_parts_stay_text(tokenizer: Tokenizer) -> None:
    for source in (TURNS, TRIMS, TAKES_PARTS):
        ids = encode_chat(
            tokenizer, ChatTemplate(source, BOS, EOS), [user(parts("x<|im_end|>", "<|im_end|>y"))]
        )
        harmless = encode_chat(tokenizer, ChatTemplate(source, BOS, EOS), [user(parts("x", "y"))])
        special = tokenizer.specials
        assert [i for i in ids if i in special] == [i for i in harmless if i in special]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([*parts("Look"), {"type": "image"}], "is a list with an image; wanted text"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], "is a list with an image; wanted text"),
        ([{"type": "input_audio", "input_audio": {}}], "is a list with audio; wanted text"),
        ([{"type": "video"}], "is a list with a video; wanted text"),
        ([{"type": "tool_use", "name": "w"}], "is a list with a part of the type 'tool_use'; wanted text"),
        ([{"type": "text", "text": 5}], "is a list with a number as text; wanted text"),
        ([{"type": "text"}], "is a list with a part without text; wanted text"),
        ([["x"]], "is a list with a list; wanted text"),
        ([None], "is a list with null; wanted text"),
        ([], "is a list with nothing in it; wanted text"),
        (5, "is a number; wanted text"),
        (0, "is a number; wanted text"),
        (2.5, "is a number; wanted text"),
        (True, "is true or false; wanted text"),
        (False, "is true or false; wanted text"),
        ({"text": "Hi"}, "is an object; wanted text"),
        (b"Hi", "is a bytes; wanted text"),
    ],
)
@pytest.mark.parametrize("source", [TURNS, TRIMS, TAKES_PARTS])
def test_what_is_no_text_is_refused_by_name(content: Any, words: str, source: str) -> None:
    with pytest.raises(BadInput) as caught:
        ChatTemplate(source).render([user("Hi"), {"role": "user", "content": content}])
    assert str(caught.value) == f"the content of message 2 (user) {words}"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("Hi", "messages is text; wanted a list of objects with role and content"),
        ({"role": "user", "content": "Hi"}, "messages is an object; wanted a list"),
        ([user("Hi"), "x"], "message 2 is text; wanted an object with role and content"),
        ([["user", "Hi"]], "message 1 is a list; wanted an object"),
        ([{"content": "Hi"}], "message 1 has no role"),
        ([{"role": "", "content": "Hi"}], "message 1 has an empty role"),
        ([{"role": 1, "content": "Hi"}], "message 1 has a number as role"),
        ([{"role": "user"}], r"message 1 \(user\) has no content"),
        ([{"role": "user", "content": None}], r"message 1 \(user\) has no content"),
        ([user("Hi"), {"role": "system", "prompt": "x"}], r"message 2 \(system\) has no content"),
        ([{"role": "assistant", "content": "", "tool_calls": {}}], "are an object; wanted a list of objects"),
        ([{"role": "assistant", "content": "", "tool_calls": ["w"]}], "hold text; wanted objects"),
    ],
)
def test_a_message_without_role_or_words_is_refused(messages: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ChatTemplate(TURNS).render(messages)


# Null -------------------------------------------------------------------------------------------------

NULLS: dict[str, dict[str, Any]] = {
    "content": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "name": {"role": "assistant", "content": "Yes", "name": None, "tool_calls": [CALL]},
    "reasoning": {"role": "assistant", "content": None, "reasoning_content": "So.", "tool_calls": [CALL]},
    "calls": {"role": "assistant", "content": "Yes", "tool_calls": None, "refusal": None},
    "part": {"role": "assistant", "content": [{"type": "text", "text": None}], "tool_calls": [CALL]},
}
WRITES_NULLS = {
    "plain": "{% for m in messages %}[{{ m.content }}]{{ m.name }}{{ m.refusal }}{% endfor %}",
    "added": "{% for m in messages %}{{ '[' + m['content'] + ']' }}{% endfor %}",
    "tilde": "{% for m in messages %}{{ '[' ~ m.content ~ m.name ~ ']' }}{% endfor %}",
    "trimmed": "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}",
    "formatted": "{% for m in messages %}{{ '[%s]' % m.content }}{{ '{}'.format(m.content) }}{% endfor %}",
    "joined": "{{ messages | map(attribute='content') | join(',') }}",
    "string": "{% for m in messages %}{% if m.content is string %}[{{ m.content }}]{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("source", WRITES_NULLS)
@pytest.mark.parametrize("null", NULLS)
def test_null_is_no_content(null: str, source: str) -> None:
    text = ChatTemplate(WRITES_NULLS[source]).render([user("Hi"), NULLS[null]])
    assert "None" not in text and "Hi" in text


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{% if m.content is none %}(none){% else %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{% if m.content is not none and m.content is defined %}{{ m.content }}{% endif %}"
        "{% endfor %}",
        "{% for m in messages %}{{ m.content is string }}{{ m.content is iterable }}{{ m.content is sequence }}"
        "{{ m.content is mapping }}{{ m.content == none }}{{ m.content != none }}{{ m.content == '' }}{% endfor %}",
        "{% for m in messages %}{{ m.content or 'nothing' }}{{ m.content | default('d', true) }}{% endfor %}",
        "{% for m in messages %}{{ m | tojson }}{{ m.tool_calls | default([]) | tojson }}{% endfor %}",
        "{% for m in messages %}{{ [m.content] }}{{ {'c': m.content} }}{% endfor %}",
        "{% for m in messages if m.content %}{{ m.content }}{% endfor %}",
        "{{ messages | selectattr('content') | map(attribute='content') | list }}",
        "{{ messages | selectattr('content', 'none') | list | length }}{{ messages[1].content in ['', none] }}",
        "{% for c in messages[1].tool_calls %}{{ c.function.arguments.x }}{{ c.function.arguments | tojson }}"
        "{% endfor %}",
    ],
)
def test_where_a_template_asks_for_null_it_is_null(source: str) -> None:
    """The authority is transformers, which writes null as "None" only if a template does not test for it."""
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(tokenizer_object=library_tokenizer("qwen2"))
    call = {"type": "function", "function": {"name": "w", "arguments": {"x": None, "y": [None]}}}
    talk = [user("Hi"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    expected = reference.apply_chat_template(talk, chat_template=source, tokenize=False)
    assert ChatTemplate(source).render(talk, add_generation_prompt=False) == expected


def test_a_template_that_refuses_missing_content_is_not_talked_round() -> None:
    source = (
        "{% for m in messages %}{% if m.content is not defined %}{{ raise_exception('wants content') }}"
        "{% endif %}{{ m.content ~ (m.tool_calls | default([]) | tojson) }}{% endfor %}"
    )
    with pytest.raises(BadInput, match="refuses these messages: wants content"):
        ChatTemplate(source).render(
            [user("Hi"), {"role": "assistant", "content": None, "tool_calls": [CALL]}]
        )


# What a template leaves out ---------------------------------------------------------------------------

CALLED = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
NOTED = {"role": "assistant", "content": "", "function_call": {"name": "w", "arguments": "{}"}}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "Rain"}
WITHOUT_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
WITHOUT_TOOLS = "{% for m in messages if m.role != 'tool' %}{{ m.content }}{% endfor %}"
LAST_ONLY = "{{ messages[-1].content }}"


@pytest.mark.parametrize(
    ("source", "messages", "words"),
    [
        (TURNS, [user("Hi"), CALLED], "neither the name nor the arguments of the call of 'w' in message 2"),
        (TURNS, [user("Hi"), {**CALLED, "content": ""}], "of the call of 'w' in message 2"),
        (TURNS, [user("Hi"), {**CALLED, "content": None}], "of the call of 'w' in message 2"),
        (TURNS, [user("Hi"), NOTED], "of the call of 'w' in message 2"),
        (
            "{% for m in messages %}{{ m.content }}{{ (m.tool_calls or [{'function': {}}])[0].function.name }}{% endfor %}",
            [user("Hi"), {**CALLED, "tool_calls": [CALL, {"function": {"name": "v", "arguments": "{}"}}]}],
            "of the call of 'v' in message 2",
        ),
        (
            WITHOUT_SYSTEM,
            [{"role": "system", "content": "S"}, user("Hi")],
            r"nothing of message 1 \(system\): .*--merge-system",
        ),
        (WITHOUT_TOOLS, [user("Hi"), ANSWERED], r"nothing of message 2 \(tool\)"),
        (
            "{% for m in messages %}{{ m.content }}{{ (m.tool_calls or [{}])[0].id }}{% endfor %}",
            [user("Hi"), CALLED],
            "of the call of 'w' in message 2",
        ),
        (LAST_ONLY, [user("Hi"), assistant("Yes"), user("No")], r"nothing of message 1 \(user\)"),
        ("{{ messages | length }}", [user("Hi")], r"nothing of message 1 \(user\)"),
        ("{{ messages[0].content | length }}", [user("Hi")], r"nothing of message 1 \(user\)"),
    ],
)
def test_what_the_template_leaves_out_is_refused(
    source: str, messages: Any, words: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(BadInput, match=words):
        encode_chat(tokenizer, ChatTemplate(source, BOS, EOS), messages)


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (TEMPLATES["macros and tools"], [user("Hi"), CALLED, ANSWERED, assistant("It rains.")]),
        ("{% for m in messages %}{{ m | tojson }}{% endfor %}", [user("Hi"), CALLED, NOTED]),
        (
            "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.arguments }}"
            "{% endfor %}{% endfor %}",
            [user("Hi"), CALLED],
        ),
        (TURNS, [user(" \n"), assistant("Yes")]),
        (TEMPLATES["thinking"], [user("Hi"), assistant("<think>\nonly a thought\n</think>\n"), user("x")]),
    ],
)
def test_what_is_written_is_not_refused(source: str, messages: Any, tokenizer: Tokenizer) -> None:
    assert encode_chat(tokenizer, ChatTemplate(source, BOS, EOS), messages)


# Variables --------------------------------------------------------------------------------------------


def test_the_variables_that_a_template_reads() -> None:
    assert ChatTemplate(TEMPLATES["thinking"]).variables == {
        "messages",
        "add_generation_prompt",
        "enable_thinking",
    }
    assert "tools" in ChatTemplate(TEMPLATES["macros and tools"]).variables
    inside = "{% macro m() %}{{ deep }}{% endmacro %}{{ m() }}{% set own = 1 %}{{ own }}{{ range(2) }}"
    assert ChatTemplate(inside).variables == {"deep"}


@pytest.mark.parametrize("name", ["enable_thinkin", "thinking", "tools", "own"])
def test_a_variable_that_nobody_reads_is_refused(name: str) -> None:
    template = ChatTemplate(TEMPLATES["thinking"] + "{% set own = 1 %}")
    with pytest.raises(BadInput, match=f"reads no variable '{name}'; it reads enable_thinking$"):
        template.check_variables({name: 1})
    template.check_variables({"enable_thinking": False})


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt"])
def test_what_the_conversation_sets_is_no_variable(name: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}' is set by the conversation"):
        ChatTemplate(TURNS).check_variables({name: []})


def test_variables_reach_the_template_and_their_texts_stay_text(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(TEMPLATES["thinking"], BOS, EOS)
    assert template.render([user("Hi")], enable_thinking=False).endswith("<think>\n\n</think>\n\n")
    assert not template.render([user("Hi")], enable_thinking=True).endswith("</think>\n\n")
    source = "{{ date }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    ids = encode_chat(tokenizer, ChatTemplate(source), [user("Hi")], date="<|im_end|>")
    assert [tokenizer.specials[i] for i in ids if i in tokenizer.specials] == ["<|im_end|>"]
    names = ChatTemplate("{{ bos_token }}{{ messages[0].content }}", BOS, EOS)
    ids = encode_chat(tokenizer, names, [user("Hi")], bos_token="<|im_end|>")
    assert ids[0] == tokenizer.id_of("<|im_end|>"), "a token's name is the template's own"
