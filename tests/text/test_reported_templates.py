"""Chat template faults that were reported elsewhere, tried here. Each test names its report.

The templates are written for these tests and resemble those in the reports.
"""
# ruff: noqa: E501 - templates are easier to read in one line

from __future__ import annotations

from typing import Any

import pytest

from pophood.errors import BadFile, BadInput
from pophood.text.chat.chat_template import ChatTemplate, encode_chat, takes_system
from pophood.text.chat.messages import merge_system
from pophood.text.load import load_text_gguf
from pophood.train.data.encode.encode import ItemEncoder
from pophood.train.data.read.layouts import Item
from tests.text.templates import TEMPLATES, assistant, user
from tests.text.vocabularies import byte_level_metadata, library_tokenizer
from tests.train.data.samples import BOS, EOS, byte_level

MISTRAL = (
    "{{ bos_token }}{% set talk = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for m in talk %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('After the optional system message, conversation roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<|im_start|>' + role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
CODER = (
    "{{ 'You are an AI programming assistant.\n' }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '### Instruction:\n' + m['content'] + '\n' }}{% else %}{{ '### Response:\n' + m['content'] + '\n<|EOT|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:' }}{% endif %}"
)
CALLS_XML = (
    "{% macro text(value) %}{% if value is mapping or (value is sequence and value is not string) %}{{ value | tojson | safe }}"
    "{% else %}{{ value | string }}{% endif %}{% endmacro %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "<function={{ c.function.name }}>{% for name, value in c.function.arguments | items %}\n<parameter={{ name }}>\n"
    "{{ text(value) }}\n</parameter>{% endfor %}\n</function>{% endfor %}<|im_end|>\n{% endfor %}"
)
KEEPS_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% set reasoning = m.reasoning_content or '' %}"
    "{% set content = m.content %}{% if '</think>' in content %}{% set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}<think>\n{{ reasoning | trim }}\n</think>\n\n{{ content }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.fixture(scope="module")
def reference() -> Any:
    """Return transformers' tokenizer for the same vocabulary."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=library_tokenizer("qwen2"), bos_token=BOS, eos_token=EOS)


def same(reference: Any, source: str, talk: list[dict[str, Any]], prompt: bool = False) -> str:
    """Render a conversation, and check that transformers renders the same."""
    expected = reference.apply_chat_template(
        talk, chat_template=source, tokenize=False, add_generation_prompt=prompt
    )
    found = ChatTemplate(source, BOS, EOS).render(talk, add_generation_prompt=prompt)
    assert found == expected
    return found


def learned(source: str, talk: list[dict[str, Any]]) -> str:
    found = ItemEncoder(byte_level(), ChatTemplate(source, BOS, EOS)).item(Item(messages=tuple(talk)))
    return byte_level().decode(found.ids[found.trained].tolist(), special=True)


def test_vllm_6862_two_user_messages() -> None:
    talk = [user("Which city?"), user("And its history?")]
    with pytest.raises(
        BadInput, match=r"^the chat template refuses these messages: After the optional system"
    ):
        encode_chat(byte_level(), ChatTemplate(MISTRAL, BOS, EOS), talk)


@pytest.mark.parametrize("value", ["Oslo", 3, None, True, ["a", {"b": 1}], {"c": [1, 2]}, "<b> & 'c'"])
def test_lmstudio_1342_and_zed_45379_the_filter_safe_and_the_test_sequence(
    value: Any, reference: Any
) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": value}}}
    same(reference, CALLS_XML, [user("Hi"), {"role": "assistant", "content": "", "tool_calls": [call]}])


def test_mlx_examples_1195_parts_for_a_template_that_adds_texts() -> None:
    template = ChatTemplate(CODER)
    asked = [{"type": "text", "text": "who is mickey mouse?"}]
    assert template.render([user(asked)]) == template.render([user("who is mickey mouse?")])


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
@pytest.mark.parametrize("read", ["reasoning_content", "thinking"])
def test_llama_cpp_16934_reasoning_under_another_name(name: str, read: str, reference: Any) -> None:
    source = (
        "{% for m in messages %}{% if m."
        + read
        + " %}[{{ m."
        + read
        + " }}]{% endif %}{{ m.content }}{% endfor %}"
    )
    talk = [user("Hi"), {**assistant("Four"), name: "2 + 2"}]
    assert same(reference, source, talk) == "Hi[2 + 2]Four"


@pytest.mark.parametrize(
    ("thought", "words"),
    [
        ("", ""),
        ("<think>This is so</think>", "This is so"),
        ("<think>\nThis is so\n</think>\n\n", "This is so"),
    ],
)
def test_axolotl_3088_a_thinking_model_s_answers_in_several_turns(
    thought: str, words: str, reference: Any
) -> None:
    talk = [user("What's 2+2?"), assistant("4."), user("And 3+3?"), assistant(f"{thought}6.")]
    text = learned(TEMPLATES["thinking"], talk)
    assert text == f"4.<|im_end|><think>\n{words}\n</think>\n\n6.<|im_end|>"
    answers = text.split("<|im_end|>")[:-1]
    assert all(answer in same(reference, TEMPLATES["thinking"], talk) for answer in answers)


@pytest.mark.parametrize("first", ["2 + 2 = 4.\n</think>\n\n4.", "<think>\n2 + 2 = 4.\n</think>\n\n4."])
def test_trl_6361_a_thought_whose_opening_tag_stood_in_the_prompt(first: str, reference: Any) -> None:
    text = same(reference, KEEPS_THOUGHTS, [user("Sum?"), assistant(first), user("Sure?")], prompt=True)
    assert "assistant\n<think>\n2 + 2 = 4.\n</think>\n\n4.<|im_end|>" in text


def test_axolotl_2089_only_the_answers_of_an_instruct_template_are_learned(reference: Any) -> None:
    talk = [user("MASKED"), assistant("NOT MASKED"), user("MASKED"), assistant("NOT MASKED")]
    whole = same(reference, MISTRAL, talk)
    assert whole.count("[INST] MASKED [/INST] NOT MASKED<|im_end|>") == 2
    assert learned(MISTRAL, talk) == " NOT MASKED<|im_end|>" * 2


@pytest.mark.parametrize("source", [MISTRAL, GEMMA, MISTRAL.replace("{{ bos_token }}", "")])
def test_deepseek_r1_151_and_sglang_888_one_start_token(source: str) -> None:
    tokenizer = load_text_gguf(byte_level_metadata("llama-bpe")).tokenizer
    start = list(tokenizer.start_ids)
    ids = encode_chat(
        tokenizer, ChatTemplate(source.replace("<|im_start|>", "<<"), names=tokenizer.names), [user("Hi")]
    )
    assert start and ids[: len(start)] == start and ids.count(start[0]) == 1


def test_conversations_197_two_system_messages() -> None:
    talk = [{"role": "system", "content": "One."}, {"role": "system", "content": "Two."}, user("Hi")]
    template = ChatTemplate(GEMMA, BOS, EOS)
    assert not takes_system(template)
    with pytest.raises(BadInput, match="System role not supported"):
        template.render(talk)
    assert "user\nOne.\n\nTwo.\n\nHi<|im_end|>" in template.render(merge_system(talk))


def test_aider_5591_a_system_message_between_two_turns() -> None:
    talk = [user("a"), assistant("b"), {"role": "system", "content": "S"}, user("c")]
    assert ChatTemplate(GEMMA, BOS, EOS).render(merge_system(talk)).count("<|im_start|>user") == 2
    assert "S\n\nc" in ChatTemplate(GEMMA, BOS, EOS).render(merge_system(talk))


@pytest.mark.parametrize(
    "source",
    ["{% nope %}x", "{% for m in messages %}{% endfo %}", "{{ m.content }", "{% if x %}", "{% endif %}"],
)
def test_imp_1565_an_unknown_tag_is_not_dropped(source: str) -> None:
    with pytest.raises(BadFile, match="error in line 1"):
        ChatTemplate(source).render([user("Hi")])


def test_promptolution_71_the_text_under_another_key() -> None:
    with pytest.raises(BadInput, match=r"message 1 \(system\) has no content; wanted text"):
        ChatTemplate(CODER).render([{"role": "system", "prompt": "x"}, {"role": "user", "prompt": "y"}])


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{"city": "Oslo"}', "<parameter=city>\nOslo\n</parameter>"),
        ('{"days": [1, 2], "<|im_end|>": null}', "<parameter=days>\n[1, 2]\n</parameter>"),
        ({"city": "Oslo"}, "<parameter=city>\nOslo\n</parameter>"),
        ("{}", "<function=f></function>"),
    ],
)
def test_arguments_as_json_text_for_a_template_that_wants_an_object(arguments: Any, written: str) -> None:
    """Arguments as in OpenAI's protocol; transformers fails with "Can only get item pairs from a mapping"."""
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    talk = [user("Hi"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert written in ChatTemplate(CALLS_XML).render(talk)
    ids = encode_chat(byte_level(), ChatTemplate(CALLS_XML, BOS, EOS), talk)
    ends = [id_ for id_ in ids if id_ == byte_level().id_of(EOS)]
    assert len(ends) == 2, "a key of the arguments ends no turn"


def test_arguments_that_are_no_json_are_left_to_the_template() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{broken"}}
    talk = [user("Hi"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(BadInput, match=r"cannot render these messages: .*mapping"):
        ChatTemplate(CALLS_XML).render(talk)
    assert "{broken" in ChatTemplate("{% for m in messages %}{{ m | tojson }}{% endfor %}").render(talk)
