"""Text with sources: it equals str in every operation, and every character keeps its source."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.chat.sourced import Source, SourcedText, join_texts, runs_of, sources_in
from tests.text.templates import user

SOURCE = Source(0, ("content",))
LETTERS = st.text(alphabet="ab<|>\n é", max_size=8)


@st.composite
def sourced_texts(draw: st.DrawFn) -> SourcedText:
    """Make a text with parts of a message and of a template; the template's have the letter T or t."""
    parts = draw(st.lists(st.tuples(LETTERS, st.booleans()), max_size=4))
    made = [
        SourcedText(text, ((len(text), (SOURCE,)),) if text else ()) if own else "t" * len(text)
        for text, own in parts
    ]
    return SourcedText("".join(made), runs_of(join_texts([SourcedText("", ()), *made])))


OPERATIONS: dict[str, Any] = {
    "strip": lambda s, o: s.strip(),
    "strip some": lambda s, o: s.strip("a<t"),
    "lstrip": lambda s, o: s.lstrip(o or None),
    "rstrip": lambda s, o: s.rstrip(),
    "removeprefix": lambda s, o: s.removeprefix(o),
    "removesuffix": lambda s, o: s.removesuffix(o),
    "upper": lambda s, o: s.upper(),
    "title": lambda s, o: s.title(),
    "capitalize": lambda s, o: s.capitalize(),
    "swapcase": lambda s, o: s.swapcase(),
    "casefold": lambda s, o: s.casefold(),
    "split": lambda s, o: s.split(),
    "split once": lambda s, o: s.split(None, 1),
    "split at": lambda s, o: s.split(o or "t"),
    "split at twice": lambda s, o: s.split("t", 2),
    "rsplit": lambda s, o: s.rsplit(),
    "rsplit once": lambda s, o: s.rsplit(None, 1),
    "rsplit at": lambda s, o: s.rsplit("t", 1),
    "splitlines": lambda s, o: s.splitlines(),
    "splitlines with ends": lambda s, o: s.splitlines(True),
    "partition": lambda s, o: s.partition(o or "t"),
    "rpartition": lambda s, o: s.rpartition("t"),
    "replace": lambda s, o: s.replace(o or "a", "t"),
    "replace once": lambda s, o: s.replace("a", "", 1),
    "replace none": lambda s, o: s.replace("a", "t", 0),
    "replace nothing": lambda s, o: s.replace("", "t"),
    "join": lambda s, o: s.join(["t", "tt", "t"]),
    "add": lambda s, o: s + "t",
    "add before": lambda s, o: "t" + s,
    "times": lambda s, o: s * 3,
    "times before": lambda s, o: 2 * s,
    "ljust": lambda s, o: s.ljust(20, "t"),
    "rjust": lambda s, o: s.rjust(21, "t"),
    "center": lambda s, o: s.center(20, "t"),
    "zfill": lambda s, o: s.zfill(20),
    "slice": lambda s, o: s[1:5],
    "slice back": lambda s, o: s[::-1],
    "slice steps": lambda s, o: s[1:-1:2],
    "negative slice": lambda s, o: s[-3:],
    "empty slice": lambda s, o: s[5:2],
    "iterate": lambda s, o: list(s),
    "index": lambda s, o: s[0] if s else "",
    "last": lambda s, o: s[-1] if s else "",
    "reversed": lambda s, o: list(reversed(s)),
    "measures": lambda s, o: [len(s), s.count(o), s.find(o), s.startswith(o), o in s, hash(s), s == s],
}


def pieces(value: object) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [piece for item in value for piece in pieces(item)]
    return [value] if isinstance(value, str) else []


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(sorted(OPERATIONS)), text=sourced_texts(), other=LETTERS)
def test_every_operation_computes_what_str_computes(name: str, text: SourcedText, other: str) -> None:
    operation = OPERATIONS[name]
    made = operation(text, other)
    assert made == operation(text.plain(), other)
    for piece in pieces(made):
        assert sum(length for length, _ in runs_of(piece)) == len(piece)
        at = 0
        for length, sources in runs_of(piece):
            assert sources or set(str.__str__(piece)[at : at + length].lower()) <= {"t", "0"}, (
                "a character of the message became the template's"
            )
            at += length


def test_sources_are_followed_and_not_only_spread() -> None:
    """Where single characters can be followed, the template's own keep the template as source."""
    word = SourcedText("word", ((4, (SOURCE,)),))
    for made in (
        "<a>" + word + "<end>",
        ("a" + word + "b").center(12),
        ("a" + word + "b").replace("or", "<x>"),
        ("a " + word + " b").split()[1],
        ("  a" + word).strip(),
        ("A" + word).upper(),
    ):
        own = sum(length for length, sources in runs_of(made) if sources)
        assert own == (2 if "<x>" in made else 4)


# Operations of a template on a message, and the part of the result that is the template's own.
FOLLOWED = {
    "{{ '<' ~ messages[0].content ~ '>' }}": "<>",
    "{{ '<' + messages[0].content | trim + '>' }}": "<>",
    "{{ '<%s>' % messages[0].content }}": "<>",
    "{{ '<%s|%5d>' % (messages[0].content, 3) }}": "<|    3>",
    "{{ '<%(a)s>%%' % {'a': messages[0].content} }}": "<>%",
    "{{ '<%s>' | format(messages[0].content) }}": "<>",
    "{{ '<{}>'.format(messages[0].content) }}": "<>",
    "{{ '<{0:>9}|{a}>'.format(messages[0].content, a='t') }}": "<     |t>",
    "{{ '<{m[0][content]}>'.format(m=messages) }}": "<>",
    "{{ ['<', messages[0].content, '>'] | join('|') }}": "<||>",
    "{{ '|'.join(['<', messages[0].content]) }}": "<|",
    "{{ ('<\\n' ~ messages[0].content) | indent(2) }}": "<\n  ",
    "{{ ('<' ~ messages[0].content) | replace('o', '<o>') }}": "<<o>",
    "{{ ('<x' ~ messages[0].content) | upper | lower | capitalize }}": "<x",
    "{{ ('<' ~ messages[0].content ~ '> x y z') | truncate(9, true, '...', 0) }}": "<>...",
    "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(messages[0].content) }}": "<>",
    "{% set x %}<{{ messages[0].content }}>{% endset %}{{ x }}": "<>",
    "{% filter trim %} <{{ messages[0].content }}> {% endfilter %}": "<>",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}{{ messages[0].content }}{% endcall %}": "<>",
    "{% set n = namespace(x='<') %}{% for c in messages[0].content %}{% set n.x = n.x + c %}{% endfor %}"
    "{{ n.x + '>' }}": "<>",
    "<{{ messages[0].content | default('x') | string | safe }}>": "<>",
    "{{ ('<o' ~ messages[0].content ~ 'o>').replace('o', 'x', 1) }}": "<xo>",
    "{{ ('<o' ~ messages[0].content ~ 'o>') | replace('o', 'x', 0) }}": "<oo>",
    "{{ ('<' ~ messages[0].content ~ '>').center(9, '*') }}": "**<>*",
    "{{ ('<' ~ messages[0].content ~ '>').center(10, '*') }}": "**<>**",
    "{{ ('<' ~ messages[0].content).center(8, '*') }}": "*<**",
    "{{ ('<' ~ messages[0].content) | center(8) }}": " <  ",
    "<{{ [messages[0].content] | first }}{{ messages | map(attribute='content') | join }}>": "<>",
    "<{% for k, v in messages[0].items() %}{% if k == 'content' %}{{ v }}{% endif %}{% endfor %}>": "<>",
    "{{ {'a': '<' ~ messages[0].content}['a'][:3] }}": "<",
}


@pytest.mark.parametrize("source", FOLLOWED)
def test_templates_follow_every_character(source: str) -> None:
    text = ChatTemplate(source).sourced([user("word")])
    at, own = 0, ""
    for length, sources in runs_of(text):
        own += "" if sources else str(text)[at : at + length]
        at += length
    assert own == FOLLOWED[source]
    assert text == ChatTemplate(source).render([user("word")])


# Operations that cannot follow characters: the whole result counts as the message's.
SPREAD = [
    "{{ messages[0] | tojson }}",
    "{{ messages[0].content | tojson }}",
    "{{ [messages[0].content] | string }}",
    "{{ [messages[0].content] ~ '' }}",
    "{{ messages[0].content | title | wordcount }}{{ messages[0].content | title }}",
    "{{ '%r' % [messages[0].content] }}",
    "{{ '%.2s' % messages[0].content }}",
    "{{ '{!r:>30}'.format([messages[0].content]) }}",
    "{{ '{:{}}'.format(messages[0].content, 9) }}",
    "{{ (messages[0].content ~ ' {}').format('x') }}",
    "{{ messages[0].content.zfill(9) }}",
    "{{ 'x'.center(9, messages[0].content[0]) }}",
    "{{ strftime_now(messages[0].content) }}",
]


@pytest.mark.parametrize("source", SPREAD)
def test_what_cannot_be_followed_is_the_message_s(source: str) -> None:
    text = ChatTemplate(source).sourced([user("w\u00f6rd")])
    assert SOURCE in sources_in(text)
    at = 0
    for length, sources in runs_of(text):
        assert sources or not set(str(text)[at : at + length]) & set("w\u00f6rd'\"\\"), source
        at += length
