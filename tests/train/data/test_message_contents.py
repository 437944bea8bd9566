"""Contents of training messages beside text: parts, null, tool calls, thoughts, and what is left out.

The records are in the shape of public reports against programs of this field: mistral-finetune 113,
transformers PR 45422, axolotl 3824, TRL PR 5517.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadInput
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.load import load_text_folder
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.encode.encode import ItemEncoder
from pophood.train.data.read.layouts import Item
from tests.text.templates import TEMPLATES, assistant, user
from tests.text.test_messages import TAKES_PARTS, TRIMS
from tests.tiny_thinker import thinker
from tests.train.data.samples import BOS, EOS, byte_level, learned_text, opened, whole_text, write_lines

TOOLS_TEMPLATE = ChatTemplate(TEMPLATES["macros and tools"], BOS, EOS)


def parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def call(name: str = "w", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


PARTS = {
    "messages": [
        {"role": "user", "content": parts("What is 2+2?")},
        {"role": "assistant", "content": parts("Four.")},
    ]
}
NULL = {
    "messages": [
        user("Weather?"),
        {"role": "assistant", "content": None, "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
        assistant("It rains."),
    ]
}
CALLS = [
    {"messages": [user("Weather?"), {"role": "assistant", "content": words, "tool_calls": [call()]}]}
    for words in ("", "Let me look.", None)
]
ARGUMENTS = {
    "messages": [
        user("Find text"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"text": "end"}}}],
        },
    ]
}


def only(path: Path, record: Any, source: str, **options: Any) -> Any:
    """Open data with one record four times, so that it is on the training side."""
    return opened(
        write_lines(path / "x.jsonl", [record] * 4), template=ChatTemplate(source, BOS, EOS), **options
    )


def why(path: Path, record: Any, source: str = TEMPLATES["turns"]) -> str:
    with pytest.raises(BadInput, match="no document to train on") as caught:
        only(path, record, source)
    return str(caught.value)


@pytest.mark.parametrize("source", [TEMPLATES["turns"], TRIMS, TAKES_PARTS, TEMPLATES["macros and tools"]])
@pytest.mark.parametrize(
    "record",
    [
        PARTS,
        {"prompt": [PARTS["messages"][0]], "completion": [PARTS["messages"][1]]},
        {"messages": [{"role": "user", "content": ["What is 2+2?"]}, assistant("Four.")]},
        {"messages": [user("What is 2+2?"), {"role": "assistant", "content": [{"text": "Four."}]}]},
    ],
)
def test_parts_that_are_text_are_learned_as_one_text(source: str, record: Any, tmp_path: Path) -> None:
    data = only(tmp_path, record, source)
    plain = only(tmp_path, {"messages": [user("What is 2+2?"), assistant("Four.")]}, source)
    assert learned_text(data) == learned_text(plain) == "Four.<|im_end|>"
    assert whole_text(data) == whole_text(plain) and data.report.bad_count == 0
    assert not any("\ue000" <= letter <= "\uf8ff" for letter in whole_text(data))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            [*parts("Look"), {"type": "image_url", "image_url": {"url": "x"}}],
            "is a list with an image; wanted text",
        ),
        ([{"type": "audio"}], "is a list with audio; wanted text"),
        ([], "is a list with nothing in it; wanted text"),
        (7, "is a number; wanted text"),
        (True, "is true or false; wanted text"),
        ({"text": "Hi"}, "is an object; wanted text"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("layout", ["messages", "prompt"])
def test_what_is_no_text_is_named(content: Any, words: str, place: int, layout: str, tmp_path: Path) -> None:
    talk = [user("Hi"), assistant("Yes")]
    talk[place] = {**talk[place], "content": content}
    record = {"messages": talk} if layout == "messages" else {"prompt": talk[:1], "completion": talk[1:]}
    said = why(tmp_path, record)
    assert f"the content of message {place + 1} ({talk[place]['role']}) {words}" in said


def test_null_is_no_content(tmp_path: Path) -> None:
    data = only(tmp_path, NULL, TOOLS_TEMPLATE.source)
    assert "None" not in whole_text(data) and "It rains." in learned_text(data)
    assert '"name": "w"' in learned_text(data)


@pytest.mark.parametrize("record", [*CALLS, ARGUMENTS, NULL])
def test_a_call_that_the_template_does_not_write_is_refused(record: Any, tmp_path: Path) -> None:
    name = record["messages"][1]["tool_calls"][0]["function"]["name"]
    said = why(tmp_path, record)
    assert f"neither the name nor the arguments of the call of '{name}' in message 2 (assistant)" in said


@pytest.mark.parametrize("record", [*CALLS, ARGUMENTS, NULL])
def test_a_call_that_it_writes_is_learned_with_its_end(record: Any, tmp_path: Path) -> None:
    data = only(tmp_path, record, TOOLS_TEMPLATE.source)
    name = record["messages"][1]["tool_calls"][0]["function"]["name"]
    text = learned_text(data)
    assert f'"name": "{name}"' in text and text.endswith("<|im_end|>")
    assert text.count("<|im_end|>") == sum(m["role"] == "assistant" for m in record["messages"])
    assert "Weather?" not in text and "Rain" not in text.split()


def test_a_call_between_special_tokens_is_learned_to_its_end() -> None:
    """A special token after the words does not end the answer; its end token does."""
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<|endoftext|>{{ c.function | tojson }}<|endoftext|>{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = byte_level()
    encoder = ItemEncoder(tokenizer, ChatTemplate(source, BOS, EOS))
    encoder._ends -= {tokenizer.id_of("<|endoftext|>")}  # here it only opens and closes a call
    talk = (
        user("Hi"),
        {"role": "assistant", "content": "Look.", "tool_calls": [call()]},
        user("So?"),
        assistant("x"),
    )
    found = encoder.item(Item(messages=talk))
    text = tokenizer.decode(found.ids[found.trained].tolist(), special=True)
    assert text == ('Look.<|endoftext|>{"name": "w", "arguments": {}}<|endoftext|><|im_end|>x<|im_end|>')


WITHOUT_SYSTEM = TEMPLATES["turns"].replace(
    "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
)
WITHOUT_TOOL = WITHOUT_SYSTEM.replace("'system'", "'tool'")
WITHOUT_USER = WITHOUT_SYSTEM.replace("'system'", "'user'")


def test_a_system_text_that_is_left_out_is_said(tmp_path: Path) -> None:
    record = {"messages": [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Yes")]}
    data = only(tmp_path, record, WITHOUT_SYSTEM)
    said = "in 4 conversations the chat template leaves out the system text: the model does not see it"
    assert said in data.report.warnings
    assert "leaves out" not in " ".join(only(tmp_path, record, TEMPLATES["turns"]).report.warnings)


def test_a_name_that_is_left_out_is_said(tmp_path: Path) -> None:
    record = {"messages": [{**user("Hi"), "name": "Ann"}, {**assistant("Yes"), "reasoning_content": "Hm."}]}
    said = " ".join(only(tmp_path, record, TEMPLATES["turns"]).report.warnings)
    assert "leaves out 'name' of messages" in said and "leaves out 'reasoning_content' of messages" in said
    writes = TEMPLATES["turns"].replace("message['role']", "(message.name or message.role)")
    assert "'name'" not in " ".join(only(tmp_path, record, writes).report.warnings)


@pytest.mark.parametrize(("source", "role"), [(WITHOUT_TOOL, "tool"), (WITHOUT_USER, "user")])
def test_a_message_that_an_answer_rests_on_is_not_left_out_in_silence(
    source: str, role: str, tmp_path: Path
) -> None:
    talk = [user("Hi"), assistant("Wait."), {"role": "tool", "content": "Rain"}, assistant("It rains.")]
    number = [message["role"] for message in talk].index(role) + 1
    assert f"nothing of message {number} ({role})" in why(tmp_path, {"messages": talk}, source)


# Thoughts ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_text_folder(thinker(tmp_path_factory.mktemp("lm") / "thinker")).tokenizer


@pytest.mark.parametrize("style", ["turns", "thinking", "roles as tokens"])
def test_the_tags_of_a_thought_are_learned_as_tokens(style: str, thinking: Tokenizer, tmp_path: Path) -> None:
    record = {"messages": [user("Sum?"), assistant("<think>\nadd\n</think>\n\nFour")]}
    path = write_lines(tmp_path / "x.jsonl", [record] * 4)
    data = opened(path, tokenizer=thinking, template=ChatTemplate(TEMPLATES[style], BOS, EOS))
    assert learned_text(data, tokenizer=thinking) == "<think>\nadd\n</think>\n\nFour<|im_end|>"
    example = data.train[0]
    for tag in ("<think>", "</think>"):
        assert example.ids[example.trained].tolist().count(thinking.id_of(tag)) == 1
    assert "spell out special tokens" not in " ".join(data.report.warnings)


def test_a_user_s_tags_stay_text_and_are_said(thinking: Tokenizer, tmp_path: Path) -> None:
    record = {"messages": [user("What is <think>?"), assistant("A tag.")]}
    path = write_lines(tmp_path / "x.jsonl", [record] * 4)
    data = opened(path, tokenizer=thinking, template=ChatTemplate(TEMPLATES["turns"], BOS, EOS))
    assert thinking.id_of("<think>") not in data.train[0].ids.tolist()
    assert "4 documents spell out special tokens" in " ".join(data.report.warnings)


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.product(["Four", "<think>\nadd\n</think>\n\nFour"], repeat=2))
)
def test_an_earlier_thought_that_the_template_cuts_is_not_learned(
    first: str, second: str, thinking: Tokenizer
) -> None:
    talk = (user("Sum?"), assistant(first), user("Sure?"), assistant(second))
    encoder = ItemEncoder(thinking, ChatTemplate(TEMPLATES["thinking"], BOS, EOS))
    found = encoder.item(Item(messages=talk))
    text = thinking.decode(found.ids[found.trained].tolist(), special=True)
    thought = "<think>\nadd\n</think>\n\n" if "add" in second else "<think>\n\n</think>\n\n"
    assert text == f"Four<|im_end|>{thought}Four<|im_end|>"
