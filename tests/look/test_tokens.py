"""The talk's pages 16 and 17, several texts, five languages, split as the tokenizers library splits them."""

from __future__ import annotations

import json

import pytest

import pophood
from pophood import look
from pophood.errors import BadInput
from pophood.look.blocks import Lines
from pophood.look.views.tokens import token_boxes
from pophood.look.words import SENTENCES, count_words
from tests.look.talk_shape import overlapping, smallest_text
from tests.tiny_vocabulary import tokenizer_json

PROMPT = "The capital of Spain is"


def test_the_talks_table(small: pophood.LM) -> None:
    view = look.tokens(small)
    assert [tuple(row.values()) for row in view.tables()["tokens"]] == [
        (0, 464, "The"),
        (1, 3139, " capital"),
        (2, 286, " of"),
        (3, 8602, " Spain"),
        (4, 318, " is"),
    ]
    assert view.to_csv().splitlines()[0] == "position,token_id,token_text"
    assert str(view.tables()["tokens"]) == str(small.tokens(PROMPT))
    assert view.title == '"The capital of Spain is" in 5 tokens of small-gpt2'
    boxes = view.picture()[0]
    assert isinstance(boxes, Lines)
    assert boxes.text.splitlines() == ["│The│ capital│ of│ Spain│ is│", "│464│3139    │286│8602  │318│"]
    assert boxes.ascii == boxes.text.replace("│", "|")


def test_ratios_of_several_texts(small: pophood.LM) -> None:
    view = look.tokens(small, ["aaaa bbbb", PROMPT, "日本", " "])
    rows = list(view.tables()["comparison"])
    assert [row["characters"] for row in rows] == [9, 23, 2, 1]
    assert [row["words"] for row in rows] == [2, 5, None, 0]
    for row, text in zip(rows, ["aaaa bbbb", PROMPT, "日本", " "], strict=True):
        count = len(small.tokenize(text))
        assert row["tokens"] == count and row["tokens_per_character"] == count / len(text)
    assert rows[1]["tokens_per_word"] == 1.0
    assert rows[2]["tokens_per_word"] is None and rows[3]["tokens_per_word"] is None
    assert len(view.tables()["tokens"]) == sum(int(str(row["tokens"])) for row in rows)
    assert view.to_csv().startswith("number,characters,words,bytes,tokens,")


def test_one_sentence_in_five_languages(small: pophood.LM) -> None:
    from tokenizers import Tokenizer

    library = Tokenizer.from_str(tokenizer_json("gpt2", 50_257))
    view = look.tokens(small, languages=True)
    assert [cut.label for cut in view.cuts] == list(SENTENCES) and len(SENTENCES) == 5
    for cut in view.cuts:
        assert list(cut.ids) == library.encode(cut.text, add_special_tokens=False).ids
        assert cut.text == SENTENCES[cut.label]
    per_character = {cut.label: cut.per_character for cut in view.cuts}
    assert min(per_character, key=per_character.__getitem__) == "English"
    title = "One sentence in 5 languages, split by the tokenizer of small-gpt2"
    assert json.loads(view.to_json())["title"] == title


def test_a_start_token_is_shown_and_not_counted(rotary: pophood.LM) -> None:
    view = look.tokens(rotary, "aa bb")
    start = len(rotary.bundle.tokenizer.start_ids)
    assert start == 1 and view.cuts[0].tokens[0] == "<|begin_of_text|>"
    assert view.cuts[0].count == len(rotary.tokenize("aa bb", add_start=False))
    assert "start token" in view.notes[0]


@pytest.mark.parametrize(
    ("text", "words"), [("", "is empty"), ([], "no text"), (["a", ""], "text 2 is empty")]
)
def test_no_text(small: pophood.LM, text: str | list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        look.tokens(small, text)


def test_words_as_spaces_separate_them() -> None:
    assert [count_words(text) for text in ("one two", "", "Поезд прибывает", "電車は", "รถไฟ")] == [
        2,
        0,
        2,
        None,
        None,
    ]


def test_boxes_on_a_terminal() -> None:
    text = token_boxes([1, 22, 333, 4], ["日本", "\x1b[31m", "é", "a\u0301"])
    assert text.splitlines() == [r"│日本│\x1b[31m│é  │a\u0301│", "│1   │22      │333│4      │"]
    assert token_boxes([5], ["é"], ascii_only=True).splitlines() == [r"|\xe9|", "|5   |"]
    long = token_boxes(range(300), [" word"] * 300)
    assert max(map(len, long.splitlines())) <= 76 and long.count(" word") == 300


@pytest.mark.parametrize("count", [5, 200])
def test_the_picture_is_legible(small: pophood.LM, count: int) -> None:
    text = " ".join(SENTENCES.values()) * 3 + "\n\t$x_1$ <b> \x1b"
    ids = small.tokenize(text)[-count:]
    figure = look.tokens(small, small.detokenize(ids)).figure("dark" if count == 5 else "light")
    assert len(figure.axes[0].patches) >= count - 2
    assert overlapping(figure) == []
    assert smallest_text(figure) >= 7
