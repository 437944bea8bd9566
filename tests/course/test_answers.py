"""Guesses are read in informal notation, and compared leniently but correctly."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from pophood.course import answers, check, lesson, markup, needs, shell, words
from pophood.course.answers import read_numbers, read_yes_no
from pophood.course.markup import check_markup, to_html
from pophood.errors import BadInput


@pytest.mark.parametrize(
    "module", [answers, lesson, markup, needs, shell, words], ids=lambda module: module.__name__
)
def test_examples_in_the_docstrings(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    ("given", "right", "judged"),
    [
        ("5", 5, "right"),
        ("4", 5, "close"),
        ("3", 5, "wrong"),
        ("1.0", 1, "right"),
        ("0.99", 1.0, "close"),
        ("124 million", 124_439_808, "right"),
        ("100M", 124_439_808, "close"),
        ("1.5 billion", 1_557_611_200, "close"),
        ("68 %", 0.6835, "right"),
        ("0", 0, "right"),
        ("1", 0, "wrong"),
        ("Madrid", " Madrid", "right"),
        ('" madrid"', " Madrid", "right"),
        ("Paris", " Madrid", "wrong"),
        ("MLP", ("feed-forward", "mlp"), "right"),
        ("y", True, "right"),
        ("no", True, "wrong"),
        (True, True, "right"),
        (7, 7, "right"),
        ("", 7, "answer"),
        (None, "x", "answer"),
    ],
)
def test_judging(given: object, right: object, judged: str) -> None:
    assert check(given, right).judged == judged


@pytest.mark.parametrize("given", ["", "many", "1e999", "nan", "inf", "1 lot", "--1", "1.2.3", "٣"])
def test_what_is_no_number(given: str) -> None:
    with pytest.raises(BadInput, match="wanted a"):
        read_numbers(given)


@pytest.mark.parametrize(
    ("given", "right", "judged"),
    [
        ("1,5 mil millones", 1_557_611_200, "close"),
        ("124 millones", 124_439_808, "right"),
        ("1.024", 1024, "right"),
        ("1,024", 1024, "right"),
        ("50.257", 50_257, "right"),
        ("124.439.808", 124_439_808, "right"),
        ("0,3773", 0.3773, "right"),
        ("0.3773", 0.3773, "right"),
        ("68,35 %", 0.6835, "right"),
        ("0,5", 5, "wrong"),
        ("sí", True, "right"),
        ("Si", True, "right"),
        ("no", True, "wrong"),
        ("atencion", ("atención", "attention"), "right"),
        ("«Madrid»", " Madrid", "right"),
    ],
)
def test_judging_in_a_language_with_a_decimal_comma(given: str, right: object, judged: str) -> None:
    spanish = {
        **words.words_in(),
        "decimal_mark": ",",
        "units": "% 0.01, mil 1e3, millones 1e6, mil millones 1e9",
        "words_yes": "sí, si",
    }
    assert check(given, right, spanish).judged == judged


def test_what_is_no_yes_and_no_answer() -> None:
    with pytest.raises(BadInput, match="yes or no"):
        read_yes_no("perhaps")
    with pytest.raises(BadInput, match="got list"):
        check("1", [1])


def test_a_verdict_in_a_notebook_is_escaped() -> None:
    html = check("<b>", "<i>")._repr_html_()
    assert (
        html
        == "<p><strong>Not this time: &quot;&lt;i&gt;&quot; (you said &quot;&lt;b&gt;&quot;).</strong></p>"
    )


def test_markup_is_all_that_there_is() -> None:
    assert to_html("<script>x</script> & `<b>`") == (
        "<p>&lt;script&gt;x&lt;/script&gt; &amp; <code>&lt;b&gt;</code></p>"
    )
    assert to_html('[a](https://x.y/?a=1&b="2")') == (
        '<p><a href="https://x.y/?a=1&amp;b=%222%22" rel="noreferrer">a</a></p>'
    )
    assert to_html("[a](javascript:alert(1))") == "<p>[a](javascript:alert(1))</p>"
    table = to_html("| a | b |\n|---|:-:|\n| 1 | 2 |")
    assert table.count('<th scope="col">') == table.count("<td>") == 2 and "style" not in table
    for rows in (1, 2, 3):
        text = "\n".join(["Before.", "", *["| a | b |"] * rows])
        assert list(check_markup(text)) == [(2, "a table needs a line such as |---|---| below its first row")]
    assert list(check_markup("fine **x** `y` *z*\n- list\n  more")) == []
    assert [line for line, _ in check_markup("ok\n**no\n1. no\n`no")] == [1, 2, 3]
