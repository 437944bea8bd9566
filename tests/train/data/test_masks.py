"""The loss mask: compared with transformers if the template marks answers, else with the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.text.chat.chat_template import ChatTemplate, encode_chat
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.encode.default_template import base_template, base_template_source
from pophood.train.data.encode.encode import EncodedText, ItemEncoder
from pophood.train.data.read.layouts import Item, WrongRecord
from pophood.train.settings import DataOptions
from tests.text.templates import CONVERSATIONS, TEMPLATES, assistant, user
from tests.text.vocabularies import library_tokenizer
from tests.train.data.samples import BOS, EOS, byte_level, gpt2, sentence_pieces

# The same templates with the assistant's words between the tags that transformers knows.
TAGGED = {
    "turns": TEMPLATES["turns"].replace(
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}",
        "{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
        "{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}",
    ),
    "system by default": TEMPLATES["system by default"].replace(
        "{{- ' ' + message.content.strip() + eos_token -}}",
        "{%- generation -%}{{- ' ' + message.content.strip() + eos_token -}}{%- endgeneration -%}",
    ),
    "roles as tokens": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m['content'] | trim + '<|im_end|>' }}{% endgeneration %}{% else %}"
        "{{ m['content'] | trim + '<|im_end|>' }}{% endif %}{{ '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "thinking": TEMPLATES["thinking"]
    .replace("<think>\n{{ reasoning", "{% generation %}<think>\n{{ reasoning")
    .replace(
        "{{ content }}\n        {%- else %}\n<|im_start|>assistant\n{{ content }}\n"
        "        {%- endif %}<|im_end|>",
        "{{ content }}<|im_end|>{% endgeneration %}\n        {%- else %}\n<|im_start|>assistant\n"
        "{% generation %}{{ content }}<|im_end|>{% endgeneration %}\n        {%- endif %}",
    ),
}
TALKS: dict[str, list[dict[str, Any]]] = {
    "two": [user("Hi"), assistant("Hello there.")],
    "four": [user(" Hi \n"), assistant(" Hello. \n"), user("Ünïcödé 日本?"), assistant("ναι \U0001f44d")],
    "system": [{"role": "system", "content": "Be brief."}, user("Why?"), assistant("So.\n\nYes.")],
    "thinking": CONVERSATIONS["thinking"],
    "newline first": [user("Code?"), assistant("```\nx = 1\n```")],
}


@pytest.fixture(scope="module")
def reference() -> Any:
    """Return the tokenizer of transformers with the same vocabulary."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=library_tokenizer("qwen2"), bos_token=BOS, eos_token=EOS)


def encoded(
    source: str, talk: list[dict[str, Any]], tokenizer: Tokenizer | None = None, **options: Any
) -> EncodedText:
    encoder = ItemEncoder(tokenizer or byte_level(), ChatTemplate(source, BOS, EOS), DataOptions(**options))
    return encoder.item(Item(messages=tuple(talk)))


def learned(found: EncodedText, tokenizer: Tokenizer | None = None) -> str:
    return (tokenizer or byte_level()).decode(found.ids[found.trained].tolist(), special=True)


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("style", TAGGED)
def test_ids_and_mask_are_those_of_transformers(style: str, talk: str, reference: Any) -> None:
    """Only transformers needs the tags; pophood finds the same spans without them."""
    assert "generation %}" in TAGGED[style] or "generation -%}" in TAGGED[style]
    expected = reference.apply_chat_template(
        TALKS[talk], chat_template=TAGGED[style], return_dict=True, return_assistant_tokens_mask=True
    )
    for source in (TAGGED[style], TEMPLATES[style]):
        found = encoded(source, TALKS[talk])
        assert found.ids.tolist() == expected["input_ids"]
        assert found.trained.astype(int).tolist() == expected["assistant_masks"]
    assert sum(expected["assistant_masks"]) > 1


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("style", [*TAGGED, "macros and tools"])
def test_what_is_learned_is_the_answers_with_their_ends(style: str, talk: str) -> None:
    found = encoded(TEMPLATES[style], TALKS[talk])
    answers = [m["content"] for m in TALKS[talk] if m["role"] == "assistant"]
    text = learned(found)
    assert text.count("<|im_end|>") == len(answers)
    for part, answer in zip(text.split("<|im_end|>"), answers, strict=False):
        words = answer.rpartition("</think>")[2].strip()  # earlier turns lose their reasoning
        assert part.strip().endswith(words)
        assert "Hi" not in part
    encoder_ids = encode_chat(
        byte_level(), ChatTemplate(TEMPLATES[style], BOS, EOS), TALKS[talk], add_generation_prompt=False
    )
    assert found.ids.tolist() == encoder_ids


def test_the_prompt_of_training_is_the_prompt_of_generation() -> None:
    """The ids before the first answer are those of `encode_chat`, whatever the answer begins with."""
    template = ChatTemplate(TEMPLATES["turns"], BOS, EOS)
    prompt = encode_chat(byte_level(), template, [user("Hi")])
    for answer in ("Hello", "\n\nHello", " x", "\tx", "\u0301"):
        found = encoded(TEMPLATES["turns"], [user("Hi"), assistant(answer)])
        assert found.ids[: len(prompt)].tolist() == prompt
        assert not found.trained[: len(prompt)].any()
        assert found.trained[len(prompt) : -1].all()


WORDS = st.lists(
    st.sampled_from([*"ab \n", "<|im_end|>", "<|im_start|>", "é", "<|im", "_end|>"]), min_size=1, max_size=5
).map("".join)


@settings(deadline=None, max_examples=80)
@given(
    style=st.sampled_from(["turns", "roles as tokens", "system by default"]),
    words=st.lists(WORDS.filter(str.strip), min_size=2, max_size=6),
)
def test_contents_are_never_special_and_spans_are_exact(style: str, words: list[str]) -> None:
    """Only end tokens of the template end an answer, even if a text spells out special tokens."""
    words = words[: len(words) & ~1]
    talk = [user(w) if i % 2 == 0 else assistant(w) for i, w in enumerate(words)]
    found = encoded(TEMPLATES[style], talk)
    end = byte_level().id_of("<|im_end|>")
    ends = found.ids == end
    assert (ends & found.trained).sum() == len(words) // 2
    pieces = np.split(found.ids[found.trained], np.flatnonzero(found.ids[found.trained] == end) + 1)[:-1]
    for piece, word in zip(pieces, words[1::2], strict=True):
        assert piece[-1] == end
        text = byte_level().decode(piece[:-1].tolist(), special=True)
        assert text == word if style == "turns" else text.strip() == word.strip()


def test_without_a_mask_everything_is_learned() -> None:
    found = encoded(TEMPLATES["turns"], TALKS["four"], completions_only=False)
    assert found.trained.tolist() == [False] + [True] * (len(found.ids) - 1)


def test_tool_calls_are_found_turn_by_turn() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    talk = [user("Weather?"), {"role": "assistant", "content": "", "tool_calls": [call]}, assistant("Rain.")]
    text = learned(encoded(TEMPLATES["macros and tools"], talk))
    assert text.startswith("<tool_call>\n")
    assert text.count("<|im_end|>") == 2
    assert "Oslo" in text and text.endswith("Rain.<|im_end|>")


def test_a_template_that_looks_at_words_sees_no_marks() -> None:
    """This template would write marked text differently, so the spans are found without marks."""
    source = TEMPLATES["turns"].replace("message['content'] +", "message['content'][:5] + '~' +")
    found = encoded(source, TALKS["two"])
    template = ChatTemplate(source, BOS, EOS)
    assert found.ids.tolist() == encode_chat(
        byte_level(), template, TALKS["two"], add_generation_prompt=False
    )
    assert learned(found) == "Hello~<|im_end|>"


def test_a_prompt_s_words_in_a_message_are_not_where_the_answer_begins() -> None:
    """The header of an answer differs from the generation prompt, which a user spells out."""
    source = (
        "{% for m in messages %}{{ 'Bot> ' if m.role == 'assistant' else 'You> ' }}{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}Answer: {% endif %}"
    )
    assert learned(encoded(source, [user("Answer: what?"), assistant("That.")])) == "That.<|im_end|>"
    assert learned(encoded(source, [user("Is it Answer: "), assistant("That.")])) == "That.<|im_end|>"


def test_a_template_that_rewrites_its_past_is_refused() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}[old]{% else %}"
        "{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
        "{% if messages | length > 1 %}{{ messages[1].content }}{% endif %}"
    )
    talk = [user("a"), assistant("first"), user("b"), assistant("second")]
    with pytest.raises(WrongRecord, match="an answer in message 2 that the chat template rewrites"):
        encoded(source, talk)


def test_a_template_without_an_end_gets_one() -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    found = encoded(source, TALKS["four"])
    assert found.end_added
    # It ignores add_generation_prompt, so the model has to write "assistant: " too.
    assert learned(found) == "assistant:  Hello.assistant: ναι \U0001f44d<|im_end|>"
    assert found.ids[-1] == byte_level().id_of("<|im_end|>")


# Base models --------------------------------------------------------------------------------------------


def test_a_base_model_gets_headings() -> None:
    encoder = ItemEncoder(gpt2(), None)
    found = encoder.item(Item(messages=(user("What?"), assistant("That."))))
    text = gpt2().decode(found.ids.tolist(), special=True)
    assert text == "### Instruction:\nWhat?\n\n### Response:\nThat.<|endoftext|>\n\n"
    assert learned(found, gpt2()) == "That.<|endoftext|>"
    assert encoder.template.render([user("What?")]) == "### Instruction:\nWhat?\n\n### Response:\n"


def test_the_base_template_is_what_transformers_renders(reference: Any) -> None:
    talk = [{"role": "system", "content": "S"}, *TALKS["four"]]
    for prompt in (True, False):
        expected = reference.apply_chat_template(
            talk, chat_template=base_template_source(EOS), tokenize=False, add_generation_prompt=prompt
        )
        assert base_template(byte_level()).render(talk, add_generation_prompt=prompt) == expected
    assert expected.startswith(
        "S\n\n### Instruction:\n Hi \n\n\n### Response:\n Hello. \n<|im_end|>\n\n### Ins"
    )


def test_prompts_joined_as_they_are() -> None:
    pair = Item(messages=(user("The sky is"), assistant(" blue.")), paired=True)
    found = ItemEncoder(gpt2(), None, DataOptions(joined=True)).item(pair)
    assert gpt2().decode(found.ids.tolist(), special=True) == "The sky is blue.<|endoftext|>"
    assert learned(found, gpt2()) == " blue.<|endoftext|>"


# Other vocabularies -------------------------------------------------------------------------------------


def test_a_vocabulary_that_puts_spaces_in() -> None:
    tokenizer = sentence_pieces()
    source = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    )
    template = ChatTemplate(source, "<s>", "</s>")
    talk = [user("What is it?"), assistant("It is rain."), user("Why?"), assistant("Clouds.")]
    found = ItemEncoder(tokenizer, template).item(Item(messages=tuple(talk)))
    assert found.ids.tolist() == encode_chat(tokenizer, template, talk, add_generation_prompt=False)
    assert found.ids[:2].tolist() != [1, 1] and found.ids[0] == 1
    assert [part.strip() for part in learned(found, tokenizer).split("</s>")] == [
        "It is rain.",
        "Clouds.",
        "",
    ]
    text = ItemEncoder(tokenizer, template).text("Once upon")
    assert text.ids.tolist() == [1, *tokenizer.encode("Once upon", add_start=False), 2]
    assert text.trained.tolist() == [False] + [True] * (len(text.ids) - 1)


def test_start_tokens_are_not_doubled_unseen() -> None:
    tokenizer = sentence_pieces()
    template = ChatTemplate(
        "{{ bos_token }}{{ bos_token }}{{ messages[0].content ~ messages[1].content }}", "<s>", "</s>"
    )
    found = ItemEncoder(tokenizer, template).item(Item(messages=(user("a"), assistant("b"))))
    assert found.double_start
    once = ItemEncoder(
        tokenizer,
        ChatTemplate("{{ bos_token }}{{ messages[0].content ~ messages[1].content }}", "<s>", "</s>"),
    )
    assert not once.item(Item(messages=(user("a"), assistant("b")))).double_start


def test_typed_special_tokens_count_only_where_asked_for() -> None:
    plain = ItemEncoder(byte_level(), None).text("a<|im_end|>")
    parsed = ItemEncoder(byte_level(), None, DataOptions(special=True)).text("a<|im_end|>")
    end = byte_level().id_of("<|im_end|>")
    assert (plain.ids == end).sum() == 1 and plain.ids[-1] == end and len(plain.ids) > 3
    assert parsed.ids.tolist() == [byte_level().id_of("a"), end]  # and no second end


def test_smollm2_learns_its_answers(smollm2: Any) -> None:
    from pophood.model.bundle import open_bundle

    bundle = open_bundle(smollm2)
    found = ItemEncoder(bundle.tokenizer, bundle.chat_template).item(Item(messages=tuple(TALKS["four"])))
    assert learned(found, bundle.tokenizer) == " Hello. \n<|im_end|>ναι \U0001f44d<|im_end|>"
    whole = bundle.tokenizer.decode(found.ids.tolist(), special=True)
    assert whole.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
