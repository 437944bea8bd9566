"""Calls in the text of an answer: every split of a stream gives the same, what is no call stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.openai.tools.formats import ARGS, FORMATS, CallFormat
from pophood.openai.tools.json_reader import ObjectReader
from pophood.openai.tools.parser import CallParser, CallPiece, CallReading, Piece

NAMES = frozenset({"add", "now", "get_weather"})
Calls = list[tuple[str, str]]  # names, and texts of arguments


def read(reading: CallReading, parts: list[str]) -> tuple[str, Calls]:
    """Return the content and the calls of an answer that comes in these parts."""
    parser = reading.parser()
    pieces: list[Piece] = [piece for part in parts for piece in parser.push(part)]
    pieces += parser.close()
    content, calls = "", Calls()
    for piece in pieces:
        if isinstance(piece, str):
            assert piece
            content += piece
            continue
        if piece.name is not None:
            calls.append((piece.name, ""))
        assert piece.number == len(calls) - 1, "the parts of two calls are mixed"
        calls[-1] = (calls[-1][0], calls[-1][1] + piece.arguments)
    assert parser.calls == len(calls)
    return content, calls


def written(form: CallFormat, calls: Calls) -> str:
    """Return calls as the templates of a format write them."""
    if form.style == "named":
        return "".join(f"{form.opens}{name}{ARGS}{arguments}" for name, arguments in calls)
    objects = [f'{{"name": "{name}", "{form.key}": {arguments}}}' for name, arguments in calls]
    if form.style == "tagged":
        return "\n".join(f"{form.opens}\n{one}\n{form.closes}" for one in objects)
    if form.style == "bare":
        return "; ".join(objects)
    return f"{form.opens}{form.gap}[{', '.join(objects)}]"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=4).flatmap(
    lambda data: st.sampled_from(
        [json.dumps(data), json.dumps(data, ensure_ascii=False), json.dumps(data, indent=1)]
    )
)
CALLS = st.lists(st.tuples(st.sampled_from(sorted(NAMES)), ARGUMENTS), min_size=1, max_size=3)
# Text in which no mark begins, and which a stream does not end with white space.
TALK = st.text("ab.,\n é\U0001f600", min_size=1, max_size=12).map(lambda text: f"x{text}y")
SHREDS = [
    *(
        "<tool_call>",
        "</tool_call>",
        "<tool",
        "[TOOL_CALLS]",
        "[TOOL",
        "[ARGS]",
        "[CALL_ID]",
        "<|python_tag|>",
    ),
    *('{"name": "add", "arguments": {"a": 1}}', '{"name": "add", "parameters": {}}', '{"name": "other"'),
    *(
        '"name"',
        '"arguments"',
        '"',
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        ";",
        " ",
        "\n",
        "\\",
        "\\u00e9",
        "1",
        "-",
        "tr",
    ),
    *("true", "add", "now", "x", "é", "\U0001f600", "\x00", '{"a": "}<tool_call>"}', '{"name": "now", '),
]
MESS = st.lists(st.sampled_from(SHREDS), max_size=14).map("".join)
FORM = st.sampled_from(sorted(FORMATS)).map(FORMATS.__getitem__)


@st.composite
def split(draw: Any, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(deadline=None, max_examples=400)
@given(st.data(), FORM, MESS, st.booleans(), st.sampled_from([None, 1, 2]))
def test_a_split_changes_nothing(
    data: st.DataObject, form: CallFormat, text: str, certain: bool, most: int | None
) -> None:
    reading = CallReading(form, NAMES, certain, most)
    whole = read(reading, [text])
    assert read(reading, data.draw(split(text))) == whole
    assert read(reading, list(text)) == whole
    content, calls = whole
    if not calls:
        assert content == text
    assert most is None or len(calls) <= most
    for name, arguments in calls:
        assert name in NAMES
        assert certain or isinstance(json.loads(arguments), dict)


@settings(deadline=None, max_examples=200)
@given(st.data(), FORM, CALLS, TALK, TALK)
def test_calls_are_read_as_they_were_written(
    data: st.DataObject, form: CallFormat, calls: Calls, before: str, after: str
) -> None:
    if form.style == "bare":
        text, content = written(form, calls), ""
    else:
        text, content = f"{before}\n{written(form, calls)}\n{after}", f"{before}\n{after}"
    for certain in (False, True):
        assert read(CallReading(form, NAMES, certain), data.draw(split(text))) == (content, calls)


@settings(deadline=None, max_examples=200)
@given(st.data(), FORM, CALLS)
def test_a_call_that_is_cut_stays_text(data: st.DataObject, form: CallFormat, calls: Calls) -> None:
    text = written(form, calls[:1])
    cut = text[: data.draw(st.integers(1, len(text)))]
    content, found = read(CallReading(form, NAMES), data.draw(split(cut)))
    assert (content, found) in ((cut, []), ("", calls[:1]))
    assert found or cut != text


@settings(deadline=None, max_examples=200)
@given(st.data(), FORM, CALLS)
def test_a_forced_call_that_is_cut_keeps_what_came(
    data: st.DataObject, form: CallFormat, calls: Calls
) -> None:
    text = written(form, calls[:1])
    cut = text[: data.draw(st.integers(1, len(text)))]
    content, found = read(CallReading(form, NAMES, certain=True), data.draw(split(cut)))
    if found:
        ((name, arguments),) = found
        assert name == calls[0][0] and calls[0][1].startswith(arguments) and not content
    else:
        assert content == cut


HERMES, LLAMA, MISTRAL, SPACED, NAMED = (
    FORMATS[name] for name in ("hermes", "llama", "mistral", "mistral spaced", "mistral named")
)
CALL = '{"name": "add", "arguments": {"a": 1}}'
NONE: list[tuple[CallFormat, str]] = [
    (HERMES, "<tool_call>"),
    (HERMES, "<tool_call>\n\n</tool_call>"),
    (HERMES, f"<tool_call>{CALL[:-1]}</tool_call>"),
    (HERMES, f"<tool_call>[{CALL}]</tool_call>"),
    (HERMES, f"<tool_call>{CALL} and more</tool_call>"),
    (HERMES, f"<tool_call>{CALL}\n</tool"),
    (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": "{}"}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add"}</tool_call>'),
    (HERMES, '<tool_call>{"arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": 1, "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "name": "now", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {}, "parameters": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {}, "more": 1}</tool_call>'),
    (HERMES, '<tool_call>{"type": "thing", "name": "add", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {"a": "\n"}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {"a": 01}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {"a": "\\x"}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {"a": ' + "1" * 9_000 + "}}</tool_call>"),
    (HERMES, '<tool_call>{"name": "add", "arguments": ' + '{"a": ' * 90 + "1" + "}" * 91 + "</tool_call>"),
    (HERMES, f"[TOOL_CALLS] [{CALL}]"),
    (LLAMA, f"<tool_call>{CALL}</tool_call>"),
    (LLAMA, f"Well, {CALL}"),
    (LLAMA, f"{CALL} is a call"),
    (LLAMA, '{"city": "Paris"}'),
    (LLAMA, '{"name": "Bob"}'),
    (LLAMA, '{"name": "add"}'),
    (LLAMA, '<|python_tag|>brave_search.call(query="x")'),
    (LLAMA, "<|python_tag|>"),
    (LLAMA, f"```json\n{CALL}\n```"),
    (LLAMA, f"; {CALL}"),
    (MISTRAL, "[TOOL_CALLS][]"),
    (MISTRAL, f"[TOOL_CALLS]{CALL}"),
    (MISTRAL, f"[TOOL_CALLS][{CALL}"),
    (MISTRAL, f"[TOOL_CALLS][{CALL},]"),
    (MISTRAL, f'[TOOL_CALLS][{CALL}, {{"name": "unknown", "arguments": {{}}}}]'),
    (NAMED, "[TOOL_CALLS]add"),
    (NAMED, "[TOOL_CALLS]add[ARGS]"),
    (NAMED, "[TOOL_CALLS]add[ARGS]{"),
    (NAMED, "[TOOL_CALLS]unknown[ARGS]{}"),
    (NAMED, "[TOOL_CALLS]a d d[ARGS]{}"),
    (NAMED, "[TOOL_CALLS]add{}"),
    (NAMED, f"[TOOL_CALLS]{'a' * 99}[ARGS]{{}}"),
    (NAMED, "[TOOL_CALLS]add[CALL_ID]a b[ARGS]{}"),
]


@pytest.mark.parametrize(("form", "text"), NONE)
def test_what_is_no_call_stays_as_it_is(form: CallFormat, text: str) -> None:
    for whole in (text, f"x\n {text} y\n"):
        assert read(CallReading(form, NAMES), [whole]) == (whole, [])
        assert read(CallReading(form, NAMES), list(whole)) == (whole, [])


SOME: list[tuple[CallFormat, str, str, Calls]] = [
    (HERMES, f"\n\n<tool_call>{CALL}</tool_call>\n", "", [("add", '{"a": 1}')]),
    (HERMES, f"Now.\n<tool_call>\n{CALL}\n", "Now.", [("add", '{"a": 1}')]),
    (HERMES, f"<tool_call><tool_call>{CALL}</tool_call>", "<tool_call>", [("add", '{"a": 1}')]),
    (HERMES, f"<tool_call>{CALL}</tool_call> Done.", " Done.", [("add", '{"a": 1}')]),
    (
        HERMES,
        f'<tool_call>{{"name": "x", "arguments": {{}}}}</tool_call>\n<tool_call>{CALL}</tool_call>',
        '<tool_call>{"name": "x", "arguments": {}}</tool_call>',
        [("add", '{"a": 1}')],
    ),
    (HERMES, '<tool_call>{"arguments": {}, "name": "now"}</tool_call>', "", [("now", "{}")]),
    (
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"a": "</tool_call>\\u00e9"}}</tool_call>',
        "",
        [("add", '{"a": "</tool_call>\\u00e9"}')],
    ),
    (LLAMA, '<|python_tag|>{"name": "now", "parameters": {}}', "", [("now", "{}")]),
    (LLAMA, '{"type": "function", "name": "now", "parameters": {}}\n', "", [("now", "{}")]),
    (LLAMA, f'{CALL};\n{{"name": "now", "parameters": {{}}}}', "", [("add", '{"a": 1}'), ("now", "{}")]),
    (LLAMA, f'{CALL}\n{{"name": "now", "parameters": {{}}}}', "", [("add", '{"a": 1}'), ("now", "{}")]),
    (LLAMA, f"{CALL}; and so on", "; and so on", [("add", '{"a": 1}')]),
    (SPACED, f"Let me see.[TOOL_CALLS] [{CALL}]", "Let me see.", [("add", '{"a": 1}')]),
    (MISTRAL, '[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcdefghi"}]', "", [("now", "{}")]),
    (NAMED, "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]add[ARGS] {}", "", [("now", "{}"), ("add", "{}")]),
    (NAMED, "[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}", "", [("now", "{}")]),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), SOME)
def test_calls_as_models_write_them(form: CallFormat, text: str, content: str, calls: Calls) -> None:
    assert read(CallReading(form, NAMES), [text]) == (content, calls)
    assert read(CallReading(form, NAMES), list(text)) == (content, calls)


def test_with_one_call_at_most_further_ones_stay_text() -> None:
    text = f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>"
    content, calls = read(CallReading(HERMES, NAMES, most=1), [text])
    assert (content, len(calls)) == (f"\n<tool_call>{CALL}</tool_call>", 1)


def test_other_text_is_not_held_back() -> None:
    parser = CallReading(HERMES, NAMES).parser()
    assert parser.push("One <b>") == ["One <b>"]
    assert parser.push('<tool_call>{"x') == ['<tool_call>{"x'] or parser.push('": 1') == [
        '<tool_call>{"x": 1'
    ]
    bare = CallReading(LLAMA, NAMES).parser()
    assert bare.push('{"city": ') == []
    assert bare.push('"P') == ['{"city": "P']
    assert bare.push("aris") == ["aris"]


def test_forced_arguments_come_as_they_are_written() -> None:
    parser = CallReading(HERMES, NAMES, certain=True).parser()
    assert parser.push('<tool_call>\n{"name": "add", "argu') == []
    assert parser.push('ments": {"a"') == [CallPiece(0, "add"), CallPiece(0, None, '{"a"')]
    assert parser.push(": 1}}") == [CallPiece(0, None, ": 1}")]
    assert parser.push("\n</tool_call>") == parser.close() == []


@settings(deadline=None, max_examples=300)
@given(VALUES.map(json.dumps) | MESS | st.text('{}[]:,"\\ue12.-+tfn \n', max_size=20).map(lambda x: "{" + x))
def test_an_object_is_read_if_json_reads_it(text: str) -> None:
    reader = ObjectReader()
    taken = all(reader.push(char) for char in text) and reader.done
    try:
        data: Any = json.loads(text, parse_constant=lambda _: 1 / 0, object_pairs_hook=_pairs)
    except (ValueError, ZeroDivisionError):
        data = None
    if isinstance(data, dict) and text.startswith("{") and not text.endswith(tuple(" \n")):
        assert taken
        assert list(reader.places) == list(data)
        for key, (start, end) in reader.places.items():
            assert json.loads(reader.slice(start, end)) == data[key]
    elif taken:
        json.loads(text.strip())


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


def test_time_is_linear_in_an_answer() -> None:
    parser = CallParser(CallReading(HERMES, NAMES))
    for shred in ('<tool_call>{"a": "', '<tool_call>{"', "<tool_call>{", '<tool_call>{"name": "add", "'):
        text = shred * 20_000
        content, calls = read(CallReading(HERMES, NAMES), [text])
        assert content == text and not calls
    assert parser.close() == []
