"""Every fact of the talk appears in the course on a model of GPT-2's shape; one test per fact, by page.

The weights are random; facts that need real weights are tested in test_small_model.py and tests/real.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import pophood
from pophood.course import Course
from tests.course.walked import Walked, drawn, numbers, table_with

Walk = dict[str, Walked]
PROMPT = "The capital of Spain is"
SIZES = {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "XL": 1_557_611_200}


def test_contents_stand_in_the_talks_order(course: Course) -> None:
    first = [int(page.talk.split("-")[0]) for page in course.pages if page.talk]
    assert first == sorted(first)
    told = [4, 5, 6, 9, 10, 11, 12, 14, 16, 18, 19, 20, 21, 22, 24, 25, 26, 27, 29, 31, 32, 33, 34]
    assert sorted(set(first)) == told


CONTENTS = {
    "Introduction and set-up": (1, 5),
    "Load GPT-2": (6, 6),
    "Core concepts": (9, 24),
    "Running inference": (7, 23),
    "Fine-tuning, training the model": (25, 30),
    "Conclusion": (31, 31),
}


def test_the_talks_contents_page(course: Course) -> None:
    """The contents page has six parts in the talk's words, and names each page of the course once."""
    text = "\n".join(cell.text for cell in course.contents)
    rows = re.findall(r"^\| (\d)\. (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert [(number, part) for number, part, _ in rows] == [
        (str(number), part) for number, part in enumerate(CONTENTS, 1)
    ]
    pages: list[int] = []
    for _, part, place in rows:
        spans = re.findall(r"(\d+)(?: to (\d+))?", place)
        numbers = [n for low, high in spans for n in range(int(low), int(high or low) + 1)]
        assert (numbers[0], numbers[-1]) == CONTENTS[part]
        pages += numbers
    assert sorted(pages) == [page.number for page in course.pages]


def test_pages_of_our_own_are_labelled_so(course: Course) -> None:
    own = [page.number for page in course.pages if not page.talk]
    assert own == list(range(25, 32))
    assert {course.place(course.pages[number - 1]) for number in own} == {course.words["own_page"]}
    assert course.place(course.pages[15]) == "the talk, page 24"


@pytest.mark.parametrize(
    "reason", ["Privacy", "No API cost", "Complete control", "It is fun", "Because you can"]
)
def test_p4_why_locally(walked: Walk, reason: str) -> None:
    assert f"**{reason}" in walked["why-locally"].said


def test_p4_no_connection_was_tried(walked: Walk) -> None:
    page = walked["why-locally"]
    assert "Attempts to reach another computer: 0" in page.printed and page.verdict.answer == "0"


@pytest.mark.parametrize(
    "fact",
    [
        "second major GPT model of OpenAI",
        "14 February 2019",
        "full weights were public on 5 November 2019",
        "124 million parameters",
        "WebText (8 million documents, 40 GB of text)",
        "context window of 1,024 tokens",
        "vocabulary of 50,257 tokens",
        "small, medium, large and XL",
        "124,439,808, 354,823,168, 774,030,080 and 1,557,611,200",
    ],
)
def test_p5_gpt2(walked: Walk, fact: str) -> None:
    assert fact in walked["gpt-2"].said


@pytest.mark.parametrize(("size", "parameters"), SIZES.items())
def test_p5_four_sizes_from_their_shapes(walked: Walk, size: str, parameters: int) -> None:
    assert re.search(rf"^{size} +{parameters:,}$", walked["gpt-2"].printed, re.MULTILINE)


@pytest.mark.parametrize("fact", ["Reddit", "3 karma", "8 million documents, 40 GB", "Biases", "Falsehoods"])
def test_p5_what_it_was_trained_on(walked: Walk, fact: str) -> None:
    assert fact in walked["what-it-read"].said


@pytest.mark.parametrize(
    ("name", "parameters", "year", "published"),
    [
        ("GPT-2", 124e6, 2019, True),
        ("GPT-3", 175e9, 2020, True),
        ("GPT-4", 1e12, 2023, False),
        ("Claude 3.5", 180e9, 2024, False),
        ("Llama-3 8B (Ollama)", 8e9, 2024, True),
        ("GPT-5.2", 2e12, 2026, False),
    ],
)
def test_p6_six_points(walked: Walk, name: str, parameters: float, year: int, published: bool) -> None:
    view = walked["scale"].views[0]
    rows = list(table_with(view, "model", "parameters", "year"))
    row = next(row for row in rows if row["model"] == name)
    assert (row["parameters"], row["year"]) == (parameters, year)
    assert row["figure"] == ("published" if published else "estimate")
    assert any(text.startswith(f"{name} (") for text in drawn(view)), "each point is labelled"


def test_p6_axes_and_title(walked: Walk) -> None:
    view = walked["scale"].views[0]
    texts = drawn(view)
    assert view.title == "Language Model Scale"
    assert {"Approximate Launch Year", "Number of Parameters (log scale)"} <= set(texts)
    assert "log" in {axes.get_yscale() for axes in view.figure().axes}
    assert "estimates by outsiders" in walked["scale"].said


def test_p9_seed_and_device(walked: Walk) -> None:
    page = walked["set-up"]
    assert "every seed to 42" in page.said and '"not GPU nor MPS"' in page.said
    draws = re.findall(r"^seed (\d+): (.*)$", page.printed, re.MULTILINE)
    assert [seed for seed, _ in draws] == ["42", "42", "43"]
    assert draws[0][1] == draws[1][1] != draws[2][1]
    assert page.verdict.answer == "yes"


def test_p9_environment_line(walked: Walk) -> None:
    line = rf"Python \d[\w.]+ \| pophood {re.escape(pophood.__version__)} \| NumPy \d[\w.]+ \| Device: CPU"
    assert re.match(line, walked["set-up"].printed)
    assert "Python | Torch | Transformers | Device" in walked["set-up"].said


def test_p10_lines(walked: Walk) -> None:
    lines = walked["load"].printed.splitlines()
    assert lines[:2] == ["Model Loaded: gpt2", "Number of GPT-2 Parameters: 124,439,808"]


@pytest.mark.parametrize(
    "fact",
    [
        '"preserve the exact token boundaries"',
        "pad token is the end-of-text token",
        "download shows its progress",
        "forced download",
        "turns dropout off",
    ],
)
def test_p10_settings(walked: Walk, fact: str) -> None:
    assert fact in walked["load"].said


def test_p10_token_boundaries_and_end_of_text(walked: Walk) -> None:
    assert "The text comes back as it was: True" in walked["load"].printed
    assert "50256" in walked["load"].printed


def test_p11_ten_new_tokens_after_the_prompt(walked: Walk, gpt2_shaped: pophood.LM) -> None:
    page = walked["generate"]
    code = next(page.page.cells("run")).text
    assert all(part in code for part in ("max_tokens=10", "top_k=40", "temperature=0.8"))
    output = re.search(r"^Output: (.*)^Time:", page.printed, re.MULTILINE | re.DOTALL)
    assert output is not None and output[1].startswith(PROMPT) and "<|endoftext|>" not in output[1]
    assert page.printed.startswith(f"Prompt: {PROMPT}\n")
    assert re.search(r"^Time: \d+\.\d\ds \(CPU\)$", page.printed, re.MULTILINE)
    assert gpt2_shaped.generate(PROMPT, max_tokens=10, top_k=40, temperature=0.8).tokens[9].id >= 0


@pytest.mark.parametrize(
    "fact",
    [
        "Madrid, which has been under the control of a",
        '"Time: 0.17s (CPU)"',
        "begins with the prompt, and special tokens are left out",
        "attention mask",
    ],
)
def test_p11_facts(walked: Walk, fact: str) -> None:
    assert fact in walked["generate"].said


def test_p12_ten_outputs_and_greedy_repetition(walked: Walk) -> None:
    found = re.findall(
        r"^Output +(\d+): (.*?)(?=^Output|\Z)", walked["ten-samples"].printed, re.MULTILINE | re.DOTALL
    )
    assert [number for number, _ in found] == [*map(str, range(1, 11))] * 2
    assert all(text.startswith(PROMPT) for _, text in found)
    warm, cold = ({text.strip() for _, text in found[part]} for part in (slice(10), slice(10, 20)))
    assert len(warm) > 1 and len(cold) == 1
    assert walked["ten-samples"].verdict.answer == "1"
    assert "\nOutput  2: " in walked["ten-samples"].printed, "numbers are two wide"


@pytest.mark.parametrize(
    "fact",
    [
        'Madrid, Barcelona, Valencia and "a city" all occur',
        '"The capital of Spain is Madrid, and the capital of Spain is Madrid."',
        "0.00001",
    ],
)
def test_p12_facts(walked: Walk, fact: str) -> None:
    assert fact in walked["ten-samples"].said


def test_p14_hidden_states_have_one_shape_at_every_layer(walked: Walk) -> None:
    hidden = next(view for view in walked["pipeline"].views if view.name == "hidden")
    rows = list(table_with(hidden, "place", "shape"))
    assert {row["shape"] for row in rows} == {"(1, 5, 768)"} and len(rows) == 14
    assert walked["pipeline"].verdict.answer == "3,840"


def test_p14_the_way(walked: Walk) -> None:
    said = walked["pipeline"].said
    assert "(batch size, sequence length, hidden size)" in said and "1,024 tokens" in said
    assert "a linear layer, logits, probabilities" in said and "12 blocks" in said


def test_p16_tokens_and_batch(walked: Walk) -> None:
    assert walked["tokens"].printed == "Batch size: 1\nSequence length: 5\n"
    assert walked["tokens"].verdict.answer == "5"


@pytest.mark.parametrize(
    ("position", "token_id", "token_text"),
    [(0, 464, "The"), (1, 3139, " capital"), (2, 286, " of"), (3, 8602, " Spain"), (4, 318, " is")],
)
def test_p17_table(walked: Walk, position: int, token_id: int, token_text: str) -> None:
    table = table_with(walked["tokens"].views[0], "position", "token_id", "token_text")
    assert table.columns[:3] == ("position", "token_id", "token_text") and len(table) == 5
    assert table.rows[position][:3] == (position, token_id, token_text)
    assert f'| {position} | {token_id} | "{token_text}" |' in walked["tokens"].said


def test_p18_token_embedding_matrix(walked: Walk) -> None:
    assert "Token embedding matrix: (50257, 768)" in walked["embeddings"].printed


FAMILY = "father mother brother s ister man woman boy girl dog cat horse cow"
CITIES = "London Paris Mad rid R ome Os lo Ber lin UK France Spain Italy Nor way Germany"


@pytest.mark.parametrize(("number", "words"), [(0, FAMILY), (1, CITIES)])
def test_p19_points(walked: Walk, number: int, words: str) -> None:
    view, pieces = walked["map"].views[number], words.split()
    table = table_with(view, "token_text", "x", "y")
    assert table.column("token_text") == pieces and len(pieces) in (13, 17)
    assert numbers(view)["coordinates"] == (len(pieces), 2)
    assert set(pieces) <= {text.partition(" (of ")[0] for text in drawn(view)}, "parts name their words"


def test_p19_title_axes_and_centring(walked: Walk) -> None:
    view = walked["map"].views[0]
    assert view.title == "GPT-2 Token Embedding Space"
    assert not view.figure().axes[0].axison, "axes are off"
    table = table_with(view, "x", "y")
    xy = np.array([[float(str(row["x"])), float(str(row["y"]))] for row in table])
    assert np.abs(xy.mean(axis=0)).max() < 1e-5, "centred"


def test_p19_it_is_the_svd(walked: Walk, gpt2_shaped: pophood.LM) -> None:
    """NumPy's SVD of the centred rows gives the same two columns, up to sign."""
    table = table_with(walked["map"].views[0], "token_id", "x", "y")
    rows = gpt2_shaped.weights["embed.token"][[int(str(id_)) for id_ in table.column("token_id")]]
    centred = rows - rows.mean(axis=0)
    right = np.linalg.svd(centred, full_matrices=False)[2][:2]
    for column, name in zip((centred @ right.T).T, "xy", strict=True):
        ours = np.array([float(str(x)) for x in table.column(name)])
        assert min(np.abs(ours - column).max(), np.abs(ours + column).max()) < 1e-3


@pytest.mark.parametrize(
    "fact",
    [
        "s|ister",
        "Mad|rid, R|ome, Os|lo, Ber|lin and Nor|way",
        "centred and decomposed (SVD)",
        "13 points",
        "17 for London",
    ],
)
def test_p19_facts(walked: Walk, fact: str) -> None:
    assert fact in walked["map"].said


@pytest.mark.parametrize(
    "line",
    [
        "Context window: 1024",
        "Embedding dimension: 768",
        "Position embedding matrix: (1024, 768)",
        "the cat chased the mouse",
        "the mouse chased the cat",
    ],
)
def test_p20_positions(walked: Walk, line: str) -> None:
    assert line in walked["positions"].printed
    assert walked["positions"].verdict.answer == "yes", "both sentences are made of the same tokens"
