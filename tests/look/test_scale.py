"""The talk's page 6 with published figures and estimates; page 5's facts; additions; labels apart."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood import look
from pophood.errors import BadInput
from pophood.look.blocks import Points
from pophood.look.views.scale import ModelSize, parse_model, short_number
from tests.look.talk_shape import overlapping, without_weights
from tests.tiny import GPT2_SIZES, gpt2_config, tiny_config

# As talk.md has them.
TALK = [
    ("GPT-2", 124e6, 2019, "published"),
    ("GPT-3", 175e9, 2020, "published"),
    ("GPT-4", 1e12, 2023, "estimate"),
    ("Claude 3.5", 180e9, 2024, "estimate"),
    ("Llama-3 8B (Ollama)", 8e9, 2024, "published"),
    ("GPT-5.2", 2e12, 2026, "estimate"),
]


def test_the_talks_six_points() -> None:
    view = look.scale()
    assert [tuple(row.values()) for row in view.tables()["scale"]] == TALK
    points = view.picture()[0]
    assert isinstance(points, Points)
    assert [10 ** point[1] for point in points.points] == pytest.approx([row[1] for row in TALK])
    figure = view.figure()
    axes = figure.axes[0]
    assert view.title == "Language Model Scale" and axes.get_yscale() == "log"
    assert axes.get_xlabel() == "Approximate Launch Year"
    assert axes.get_ylabel() == "Number of Parameters (log scale)"
    labels = [text.get_text() for text in axes.texts]
    assert {label.rpartition(" (")[0] for label in labels} == {name for name, *_ in TALK}
    assert {label for label in labels if "estimate" in label} == {
        "GPT-4 (1T, estimate)",
        "Claude 3.5 (180B, estimate)",
        "GPT-5.2 (2T, estimate)",
    }
    assert overlapping(figure) == []


def test_the_talks_page_5() -> None:
    about = look.scale().notes[1]
    for fact in ("second major GPT model", "14 February 2019", "5 November 2019", "124 million", "WebText"):
        assert fact in about
    for fact in ("8 million documents", "40 GB", "1,024", "50,257", "small, medium, large, XL"):
        assert fact in about
    sizes = look.scale().tables()["gpt2"]
    assert [(row["blocks"], row["heads"], row["embedding_size"], row["parameters"]) for row in sizes] == list(
        GPT2_SIZES.values()
    )
    assert [gpt2_config(name).n_params for name in GPT2_SIZES] == sizes.column("parameters")


def test_the_loaded_model_is_among_them() -> None:
    known = look.scale(without_weights(gpt2_config("gpt2"), "gpt2"))
    assert known.models[-1] == ModelSize("this model: GPT-2", 124_439_808, 2019, "this model")
    assert overlapping(known.figure("dark")) == [], "two points at one place, two labels"
    unknown = look.scale(without_weights(tiny_config("llama"), "models/mine.gguf"))
    assert unknown.models[-1] == ModelSize("this model: mine", 94_528, None, "this model")
    figure = unknown.figure()
    assert any("this model: mine, 94.5K" in str(line.get_label()) for line in figure.axes[0].lines)
    renamed = look.scale(without_weights(tiny_config("llama"), "gpt2"))
    assert renamed.models[-1].year is None, "a folder called gpt2 with another model in it"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SmolLM2,135M,2024", ("SmolLM2", 135e6, 2024)),
        ("A, B and C, 1.5e9 ,2025", ("A, B and C", 1.5e9, 2025)),
        ("X,124_439_808,2019", ("X", 124_439_808, 2019)),
        ("Y,2t,2026", ("Y", 2e12, 2026)),
    ],
)
def test_additions(text: str, expected: tuple[str, float, int]) -> None:
    assert parse_model(text) == ModelSize(*expected, "added")
    assert look.scale(add=[text, expected]).models[6:] == (ModelSize(*expected, "added"),) * 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NAME,1", "is not NAME,PARAMS,YEAR"),
        ("", "is not NAME,PARAMS,YEAR"),
        ("A,many,2020", "'many' in 'A,many,2020' is not a number of parameters"),
        ("A,-5,2020", "is not a number of parameters"),
        ("A,nan,2020", "is not a number of parameters"),
        ("A,1e999,2020", "wanted 1 to 1e+18"),
        ("A,0,2020", "wanted 1 to 1e+18"),
        ("A,1M,last year", "'last year' in"),
        ("A,1M,20", "year 20; wanted 1950 to 2100"),
        (" ,1M,2020", "has no name"),
    ],
)
def test_an_addition_that_says_nothing(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words.replace("+", r"\+")) as error:
        look.scale(add=[text])
    assert "\n" not in str(error.value)


@settings(max_examples=4, deadline=None)
@given(
    added=st.lists(
        st.tuples(
            st.text("abcdefgh 8", min_size=1, max_size=12).filter(str.strip),
            st.floats(1e8, 1e12),
            st.integers(2019, date(2026, 1, 1).year),
        ),
        max_size=6,
    )
)
def test_labels_never_overlap(added: list[tuple[str, float, int]]) -> None:
    assert overlapping(look.scale(add=added).figure()) == []


def test_numbers_in_three_digits() -> None:
    assert [short_number(n) for n in (999, 94_528, 124_439_808, 1.5e9, 2e12)] == [
        "999",
        "94.5K",
        "124M",
        "1.5B",
        "2T",
    ]
