"""Text of a template and a message that form a special token together: it never counts as one.

A template may end anywhere inside a special token and a message go on with the rest, or the other way round,
or both ends may be the template's. Whatever the cut, what a message wrote is ordinary text.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.text.chat.chat_template import ChatTemplate, encode_chat
from pophood.text.chat.template_tokens import pieces_of, special_places
from tests.text.templates import user
from tests.train.data.samples import byte_level

TOKEN = "<|im_end|>"
CUTS = range(1, len(TOKEN))
WRITE = [
    "{{ messages[0].content }}",
    "{{ messages[0].content | trim }}",
    "{{ '' ~ messages[0].content ~ '' }}",
]


def specials_of(source: str, content: str, role: str = "user") -> list[str]:
    tokenizer = byte_level()
    messages = [{"role": role, "content": content}]
    ids = encode_chat(tokenizer, ChatTemplate(source), messages, add_generation_prompt=False)
    assert tokenizer.decode(ids, special=True) == ChatTemplate(source).render(
        messages, add_generation_prompt=False
    )
    return [tokenizer.specials[id_] for id_ in ids if id_ in tokenizer.specials]


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("cut", CUTS)
def test_the_template_begins_a_token_and_the_message_ends_it(cut: int, write: str) -> None:
    for rest in (TOKEN[cut:], TOKEN[cut:] + " and more", TOKEN[cut:] + "\n"):
        assert specials_of(TOKEN[:cut] + write + "|", rest) == []
        assert specials_of(TOKEN + TOKEN[:cut] + write + TOKEN, rest) == [TOKEN, TOKEN]


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("cut", CUTS)
def test_the_message_begins_a_token_and_the_template_ends_it(cut: int, write: str) -> None:
    for start in (TOKEN[:cut], "more and " + TOKEN[:cut], "\n" + TOKEN[:cut]):
        assert specials_of("|" + write + TOKEN[cut:], start) == []
        assert specials_of(TOKEN + write + TOKEN[cut:] + TOKEN, start) == [TOKEN, TOKEN]


@pytest.mark.parametrize(("first", "last"), list(itertools.combinations(CUTS, 2)))
def test_the_message_is_in_the_middle_of_a_token(first: int, last: int) -> None:
    assert specials_of(TOKEN[:first] + WRITE[0] + TOKEN[last:], TOKEN[first:last]) == []


@pytest.mark.parametrize("cut", CUTS)
def test_two_messages_make_a_token(cut: int) -> None:
    tokenizer = byte_level()
    source = "{% for m in messages %}{{ m.content }}{% endfor %}"
    ids = encode_chat(tokenizer, ChatTemplate(source), [user(TOKEN[:cut]), user(TOKEN[cut:])])
    assert not tokenizer.specials.keys() & set(ids) and tokenizer.decode(ids) == TOKEN


@pytest.mark.parametrize(
    "joint", ["m.content ~ m.tail", "[m.content, m.tail] | join", "'%s%s' % (m.content, m.tail)"]
)
@pytest.mark.parametrize("cut", CUTS)
def test_two_texts_of_a_message_make_a_token(cut: int, joint: str) -> None:
    tokenizer = byte_level()
    source = "{% for m in messages %}{{ " + joint + " }}{% endfor %}"
    ids = encode_chat(tokenizer, ChatTemplate(source), [{**user(TOKEN[:cut]), "tail": TOKEN[cut:]}])
    assert not tokenizer.specials.keys() & set(ids) and tokenizer.decode(ids) == TOKEN


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("im_end", [TOKEN]),
        ("im_", []),
        ("user|><|im_end", []),
        ("x|><|im_end|><|y", []),
        (TOKEN, []),
        ("im_end|>x", []),
    ],
)
def test_a_role_is_a_token_only_within_the_template_s_own_ends(role: str, expected: list[str]) -> None:
    assert specials_of("<|{{ messages[0].role }}|>{{ messages[0].content }}", "Hi", role) == expected


def test_the_longest_token_that_is_the_template_s_wins() -> None:
    specials = {1: "<a>", 2: "<a>b", 3: "b"}
    assert special_places("<a>b", specials) == [(0, 4, 2)]
    text = ChatTemplate("<a>{{ messages[0].content }}b").sourced([user("b")])
    assert special_places(text, specials) == [(0, 3, 1), (4, 5, 3)]
    assert pieces_of(text, specials) == [(1, None), ("b", 0), (3, None)]


LETTERS = st.text(alphabet="<|im_end>x ", max_size=14)


@settings(deadline=None, max_examples=200)
@given(before=LETTERS, content=LETTERS, after=LETTERS)
def test_the_specials_are_those_of_the_template_alone(before: str, content: str, after: str) -> None:
    """Replacing the message by a letter that no token has leaves the same special tokens."""
    source = "{{ before }}{{ messages[0].content }}{{ after }}"
    template = ChatTemplate(source, names={"before": before, "after": after})
    specials = byte_level().specials
    found = [id_ for _, _, id_ in special_places(template.sourced([user(content)]), specials)]
    apart = [id_ for _, _, id_ in special_places(template.sourced([user("\u00e9")]), specials)]
    assert found == (apart if content else [id_ for _, _, id_ in special_places(before + after, specials)])
