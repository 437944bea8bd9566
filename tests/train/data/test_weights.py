"""Messages with a weight (OpenAI's `weight`, axolotl's `train`...), and fields that nothing reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pophood.text.chat.chat_template import ChatTemplate
from pophood.train.data.encode.encode import ItemEncoder
from pophood.train.data.read.layouts import WrongRecord, items_of
from pophood.train.settings import DataOptions
from tests.conftest import ROOT
from tests.text.templates import TEMPLATES
from tests.train.data.samples import (
    BOS,
    EOS,
    TURNS,
    byte_level,
    learned_text,
    opened,
    sentence_pieces,
    write_lines,
)

CASES = ROOT / "tests" / "data" / "cases"
RUDE, KIND = "Go away.", "Sorry, hello!"
SHARED = {"role": "from", "user": "human", "assistant": "gpt", "content": "value"}


def talk(layout: str, *said: dict[str, Any]) -> dict[str, Any]:
    """Return a conversation of four messages in a layout, with more fields for each message."""
    turns = [("user", "Hi"), ("assistant", RUDE), ("user", "Please?"), ("assistant", KIND)]
    more = [*said, *[{}] * 4][:4]
    plain = [
        {"role": role, "content": words} | extra for (role, words), extra in zip(turns, more, strict=True)
    ]
    if layout == "sharegpt":
        renamed = [{SHARED.get(key, key): said for key, said in message.items()} for message in plain]
        return {"conversations": [message | {"from": SHARED[message["from"]]} for message in renamed]}
    if layout == "prompt":
        return {"prompt": plain[:1], "completion": plain[1:]}
    return {"messages": plain}


def learned(record: Any, layout: str = "messages", template: ChatTemplate = TURNS, **options: Any) -> str:
    """Return the learned text of a record, with special tokens spelled out."""
    encoder = ItemEncoder(byte_level(), template, DataOptions(**options))
    (item,) = items_of(record, layout, {})
    encoded = encoder.item(item)
    return byte_level().decode(encoded.ids[encoded.trained].tolist(), special=True)


def test_the_reported_file() -> None:
    (line,) = (CASES / "weight.jsonl").read_text(encoding="utf-8").splitlines()
    assert learned(json.loads(line)) == f"{KIND}{EOS}"


@pytest.mark.parametrize("layout", ["messages", "sharegpt", "prompt"])
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"weight": 0}, KIND),
        ({"weight": 0.0}, KIND),
        ({"train": False}, KIND),
        ({"train": False, "weight": 0}, KIND),
        ({"loss": False}, KIND),
        ({"loss_weight": 0.0}, KIND),
        ({"loss_scale": 0}, KIND),
        ({"loss": True, "loss_weight": 1.0}, RUDE + EOS + KIND),
        ({"weight": 1}, RUDE + EOS + KIND),
        ({"train": True, "weight": 1.0}, RUDE + EOS + KIND),
        ({"weight": None, "train": None}, RUDE + EOS + KIND),
        ({}, RUDE + EOS + KIND),
    ],
)
def test_a_message_says_whether_it_is_learned(layout: str, said: dict[str, Any], words: str) -> None:
    assert learned(talk(layout, {}, said), layout) == f"{words}{EOS}"


@pytest.mark.parametrize("template", ["turns", "system by default", "roles as tokens", "thinking", "dates"])
def test_a_weight_holds_with_every_template(template: str) -> None:
    rendered = ChatTemplate(TEMPLATES[template], BOS, EOS)
    assert RUDE not in learned(talk("messages", {}, {"weight": 0}), template=rendered)
    assert KIND in learned(talk("messages", {}, {"weight": 0}), template=rendered)
    assert KIND not in learned(talk("messages", {}, {}, {}, {"weight": 0}), template=rendered)


def test_the_last_answer_may_be_left_out() -> None:
    """The end token is learned, too, even if the template writes none."""
    endless = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    record = talk("messages", {}, {}, {}, {"weight": 0})
    assert learned(record) == f"{RUDE}{EOS}"
    words = learned(record, template=endless)
    assert RUDE in words and KIND not in words and EOS not in words


def test_a_weight_is_honoured_where_all_text_is_learned() -> None:
    words = learned(talk("messages", {}, {"weight": 0}), completions_only=False)
    assert RUDE not in words and "Hi" in words and "Please?" in words and KIND in words


def test_a_vocabulary_that_puts_spaces_in_leaves_an_answer_out() -> None:
    (item,) = items_of(talk("messages", {}, {"weight": 0}), "messages", {})
    tokenizer = sentence_pieces()
    template = ChatTemplate(
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", "<s>", "</s>"
    )
    encoded = ItemEncoder(tokenizer, template).item(item)
    words = tokenizer.decode(encoded.ids[encoded.trained].tolist())
    assert "hello" in words and "away" not in words


def test_a_weight_is_no_field_of_the_rendered_message() -> None:
    curious = ChatTemplate("{% for m in messages %}{{ m | tojson }}<|im_end|>{% endfor %}", BOS, EOS)
    (item,) = items_of(talk("messages", {"weight": 0}, {"train": False}), "messages", {})
    rendered = curious.render(list(item.messages))
    assert "weight" not in rendered and "train" not in rendered


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"weight": 0.5}, "has 0.5 as weight of message 2; wanted 0 (not learned) or 1"),
        ({"weight": 2}, "has 2 as weight of message 2"),
        ({"weight": "0"}, 'has "0" as weight of message 2'),
        ({"weight": True}, "has true as weight of message 2"),
        ({"weight": [0]}, "has [0] as weight of message 2"),
        ({"train": 0}, "has 0 as train of message 2; wanted true or false"),
        ({"train": "no"}, 'has "no" as train of message 2'),
        ({"loss": 1}, "has 1 as loss of message 2; wanted true or false"),
        ({"loss_scale": [0, 1]}, "has [0, 1] as loss_scale of message 2; wanted 0 (not learned) or 1"),
        ({"loss_weight": 0.3}, "has 0.3 as loss_weight of message 2; wanted 0 (not learned) or 1"),
        ({"train_detail": [{"begin_offset": 0}]}, "has train_detail in message 2: parts of a message"),
        ({"train": True, "weight": 0}, "has weight 0 and train true in message 2: leave out all but one"),
    ],
)
def test_other_values_are_refused_by_name(said: dict[str, Any], why: str) -> None:
    with pytest.raises(WrongRecord) as caught:
        items_of(talk("messages", {}, said), "messages", {})
    assert str(caught.value).startswith(why)


def test_a_weight_that_cannot_be_honoured_is_refused() -> None:
    with pytest.raises(
        WrongRecord, match="marks message 1, of the user, as learned, but only answers are learned"
    ):
        learned(talk("messages", {"weight": 1}))
    with pytest.raises(
        WrongRecord, match="marks message 3, of the user, as not learned, but all text is learned"
    ):
        learned(talk("messages", {}, {}, {"train": False}), completions_only=False)
    assert learned(talk("messages", {"weight": 0}, {}, {"train": False})).count(EOS) == 2
    with pytest.raises(WrongRecord, match="has nothing to learn: every answer has the weight 0"):
        learned(talk("messages", {}, {"weight": 0}, {}, {"train": False}))


def test_answers_in_a_prompt_are_not_learned() -> None:
    """Only the completion is learned, as in TRL, if both are lists of messages."""
    messages = talk("messages")["messages"]
    record = {"prompt": messages[:3], "completion": messages[3:]}
    assert learned(record, "prompt") == f"{KIND}{EOS}"
    record["prompt"][1]["weight"] = 1
    assert learned(record, "prompt") == f"{RUDE}{EOS}{KIND}{EOS}"
    assert RUDE in learned(record, "prompt", completions_only=False)
    with pytest.raises(WrongRecord, match="has no message of the assistant"):
        items_of({"prompt": messages, "completion": messages[:1]}, "prompt", {})


@pytest.mark.parametrize(
    ("layout", "record", "unused"),
    [
        ("messages", talk("messages", {"mood": 1}, {"rating": 5}), {"messages[].mood", "messages[].rating"}),
        ("messages", talk("messages", {"name": "Ada", "id": 3}, {"tool_calls": None, "weight": 1}), set()),
        ("messages", talk("messages", {}, {"sources": ["a"]}), {"messages[].sources"}),
        ("messages", talk("messages", {"mood": None}, {"refusal": ""}), set()),
        ("messages", talk("messages") | {"source": "web"}, {"source"}),
        ("prompt", talk("prompt", {"mood": 1}, {"mood": 2}), {"prompt[].mood", "completion[].mood"}),
        ("sharegpt", talk("sharegpt", {"mood": "calm"}, {"weight": 0}), {"conversations[].mood"}),
        ("sharegpt", talk("sharegpt", {}, {"tool_calls": [{}]}), {"conversations[].tool_calls"}),
        (
            "tasks",
            {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3", "mark": 1}]},
            {"instances[].mark"},
        ),
    ],
)
def test_fields_inside_messages_are_named_too(
    layout: str, record: Any, unused: set[str], tmp_path: Any
) -> None:
    report = opened(write_lines(tmp_path / "a.jsonl", [record]), validation=0).report
    assert report.format.startswith(layout)
    assert set(report.unused) == unused
    assert all(repr(name) in " ".join(report.notes) for name in unused)


def test_a_field_that_the_template_reads_is_used(tmp_path: Any) -> None:
    source = TEMPLATES["turns"] + "{{ messages[0].mood }}"
    path = write_lines(tmp_path / "a.jsonl", [talk("messages", {"mood": 3, "moods": 4})])
    data = opened(path, template=ChatTemplate(source, BOS, EOS), validation=0)
    assert set(data.report.unused) == {"messages[].moods"}


@pytest.mark.parametrize("name", ["mood", "reasoning_content", "thinking", "prefix"])
def test_a_text_that_the_template_leaves_out_is_named(name: str, tmp_path: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", [talk("messages", {}, {name: "Hm, well."})])
    warnings = opened(path, validation=0).report.warnings
    assert any(f"leaves out '{name}' of messages" in warning for warning in warnings)


def test_ids_with_and_without_a_weight_are_kept_apart(tmp_path: Any) -> None:
    plain = write_lines(tmp_path / "a.jsonl", [talk("messages")])
    weighed = write_lines(tmp_path / "b.jsonl", [talk("messages", {}, {"weight": 0})])
    assert learned_text(opened(plain, validation=0)) != learned_text(opened(weighed, validation=0))
