"""`LM.chat` with more than a question: message parts, template variables, and thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood.errors import BadInput
from tests.text.templates import TEMPLATES, TOOLS, assistant, user
from tests.tiny_thinker import OPENS, TAGS, thinker

PAST = [user("Sum?"), assistant("<think>\nadd\n</think>\n\nFour"), user("Sure?")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thinker(tmp_path_factory.mktemp("lm") / "thinker")


@pytest.fixture(scope="module")
def lm(folder: Path) -> pophood.LM:
    return pophood.load(folder)


def prompt(lm: pophood.LM, messages: Any, **options: Any) -> str:
    """Return the prompt that the model would read."""
    with lm.chat(messages, max_tokens=1, **options) as run:
        return lm.detokenize(run.prompt_ids, special=True)


@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
@pytest.mark.parametrize(
    "talk", [PAST, PAST[:1], [*PAST, assistant("<think>\nhm\n</think>\n\nYes"), user("x")]]
)
def test_the_prompt_is_that_of_transformers(
    lm: pophood.LM, folder: Path, talk: Any, variables: dict[str, Any]
) -> None:
    """The thought of an earlier turn is cut, and its tags are special; the template's own tags are tokens."""
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), chat_template=TEMPLATES["thinking"]
    )
    with lm.chat(talk, template=variables, max_tokens=1) as run:
        expected = reference.apply_chat_template(
            talk, add_generation_prompt=True, return_dict=False, **variables
        )
        assert list(run.prompt_ids) == expected
    if len(talk) > 1:
        assert "add" not in prompt(lm, talk) and "Four" in prompt(lm, talk)


@pytest.mark.parametrize("tags", [TAGS, ("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>")])
def test_a_thought_is_shown_as_one(tags: tuple[str, str], tmp_path: Path) -> None:
    lm = pophood.load(thinker(tmp_path / "m", tags=tags))
    opening, closing = (lm.bundle.tokenizer.id_of(tag) for tag in tags)
    assert opening is not None and closing is not None
    for forced, shown in ((opening, tags[0]), (closing, tags[1])):
        run = lm.chat("Hi", max_tokens=3, logit_bias={forced: 1000.0})
        assert "".join(token.text for token in run) == shown * 3
        hidden = lm.stream("Hi", max_tokens=3, logit_bias={forced: 1000.0})
        assert "".join(token.text for token in hidden) == "", "text that is continued has no thoughts"


def test_an_end_token_is_not_shown(lm: pophood.LM) -> None:
    end = lm.bundle.tokenizer.id_of("<|im_end|>")
    assert end is not None
    (token,) = lm.chat("Hi", logit_bias={end: 1000.0})
    assert token.text == "" and token.finish == "stop"


def test_an_answer_s_own_tags_are_tokens_where_the_template_keeps_them(tmp_path: Path) -> None:
    """With a template that cuts nothing, ids equal the generated ones, and those of transformers."""
    from transformers import PreTrainedTokenizerFast

    folder = thinker(tmp_path / "m", TEMPLATES["turns"])
    lm = pophood.load(folder)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    with lm.chat(PAST, max_tokens=1) as run:
        expected = reference.apply_chat_template(
            PAST, chat_template=TEMPLATES["turns"], add_generation_prompt=True, return_dict=False
        )
        assert list(run.prompt_ids) == expected
    opening = lm.bundle.tokenizer.id_of("<think>")
    with lm.chat([user("<think>")], max_tokens=1) as run:
        assert opening not in run.prompt_ids, "what a user types stays text"
    with lm.chat([user("a"), assistant("<|im_end|><think>"), user("b")], max_tokens=1) as run:
        ends = [token for token in run.prompt_ids if token == lm.bundle.tokenizer.id_of("<|im_end|>")]
        assert len(ends) == 3 and opening in run.prompt_ids


def test_a_prompt_that_opens_a_thought() -> None:
    from pophood.text.chat.thoughts import opened_thought

    for end, tag in (
        ("assistant\n<think>\n", "<think>"),
        ("<|Assistant|><think>", "<think>"),
        ("[/INST][THINK]", "[THINK]"),
        ("<|START_THINKING|>", "<|START_THINKING|>"),
        ("assistant\n<think>\n\n</think>\n\n", ""),
        ("assistant\n", ""),
        ("<think> is a tag", ""),
        ("", ""),
    ):
        assert opened_thought(end) == tag, end


def test_template_variables(lm: pophood.LM) -> None:
    assert prompt(lm, "Hi", template={"enable_thinking": False}).endswith("<think>\n\n</think>\n\n")
    assert prompt(lm, "Hi").endswith("assistant\n")
    with pytest.raises(BadInput, match="reads no variable 'enable_thinkin'; it reads enable_thinking"):
        lm.chat("Hi", template={"enable_thinkin": False})
    with pytest.raises(BadInput, match="reads no variable 'tools'"):
        lm.chat("Hi", template={"tools": TOOLS})
    with pytest.raises(BadInput, match="'messages' is set by the conversation"):
        lm.chat("Hi", template={"messages": []})
    with pytest.raises(BadInput, match="no setting is called enable_thinking"):
        lm.chat("Hi", enable_thinking=False)


def test_tools_reach_a_template_that_reads_them(tmp_path: Path) -> None:
    lm = pophood.load(thinker(tmp_path / "m", TEMPLATES["macros and tools"]))
    assert "weather" in prompt(lm, "Hi", template={"tools": TOOLS})
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    talk = [
        user("Hi"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "Rain"},
    ]
    text = prompt(lm, talk)
    assert '"city": "Oslo"' in text and "None" not in text


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([user(5)], "the content of message 1 .user. is a number; wanted text"),
        ([user([{"type": "image"}])], "is a list with an image; wanted text"),
        ([user(None)], "has no content"),
        ([{"role": "user"}], "has no content"),
        (["Hi"], "message 1 is text; wanted an object"),
        ({"role": "user", "content": "Hi"}, "messages is an object; wanted a list"),
        (
            [user("Hi"), {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w"}}]}],
            "neither the name nor the arguments of the call of 'w'",
        ),
    ],
)
def test_messages_that_the_model_would_not_see_are_refused(lm: pophood.LM, messages: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        lm.chat(messages)


def test_a_text_of_a_message_that_is_left_out_is_said(lm: pophood.LM) -> None:
    with pytest.warns(UserWarning, match="writes nothing of 'name' in message 1 .user.: the model does not"):
        lm.chat([{**user("Hi"), "name": "Ann"}]).close()
    lm.chat([{**user("Hi"), "tool_call_id": "c1"}]).close()  # no warning about tags in code
    past = [user("a"), {**assistant("b"), "reasoning_content": "c"}, user("d")]
    lm.chat(past).close()  # nor about a thought in an earlier turn


def test_parts_are_text(lm: pophood.LM) -> None:
    assert prompt(lm, [user([{"type": "text", "text": "Hi"}])]) == prompt(lm, "Hi")


def test_the_thought_that_a_prompt_opens(tmp_path: Path) -> None:
    lm = pophood.load(thinker(tmp_path / "m", OPENS))
    assert prompt(lm, "Hi").endswith("<think>\n")
    assert prompt(lm, [user("Sum?"), assistant("add\n</think>\n\nFour"), user("Sure?")]).count("add") == 0
