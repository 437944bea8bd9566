"""The talk's pages 18 and 19: shapes, the map of 13 and 17 points, neighbours, cosines, by plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood import look
from pophood.errors import BadInput, NotFound, PophoodError
from pophood.look.math.geometry import cosines, nearest, principal
from pophood.look.words import WORD_LISTS
from tests.look.talk_shape import overlapping, smallest_text, talk_model

FAMILY = "father mother brother s ister man woman boy girl dog cat horse cow".split()  # noqa: SIM905
CITIES = "London Paris Mad rid R ome Os lo Ber lin UK France Spain Italy Nor way Germany".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return talk_model(tmp_path_factory)


def test_both_shapes_are_the_talks(talk: pophood.LM) -> None:
    view = look.embeddings(talk)
    assert view.token_shape == (50257, 768) and view.position_shape == (1024, 768)
    block = view.picture()[0]
    assert "Token embedding matrix: (50257, 768)\nPosition embedding matrix: (1024, 768)" in str(block.text)  # type: ignore[union-attr]


@pytest.mark.parametrize(("words", "pieces"), [("family", FAMILY), ("cities", CITIES)])
def test_the_talks_points(talk: pophood.LM, words: str, pieces: list[str]) -> None:
    view = look.embeddings(talk, words)
    assert [piece.text for piece in view.pieces] == pieces and len(pieces) in (13, 17)
    rows = talk.weights["transformer.wte.weight"][[piece.id for piece in view.pieces]]
    assert np.array_equal(view.vectors, rows)
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    shown = np.array([(piece.x, piece.y) for piece in view.pieces])
    expected = centred @ right[:2].T
    for axis in range(2):
        sign = np.sign(right[axis][np.abs(right[axis]).argmax()])
        assert shown[:, axis] == pytest.approx(sign * expected[:, axis], abs=1e-9)
    assert view.explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()))
    spaced = look.embeddings(talk, words, spaced=True)
    assert [piece.text for piece in spaced.pieces] == [f" {word}" for word in WORD_LISTS[words].words]
    assert not any("several tokens" in note for note in spaced.notes)
    assert any("Mad|rid, R|ome, Os|lo, Ber|lin, Nor|way" in n or "s|ister" in n for n in view.notes)


def test_a_turned_right_vector_is_turned_back() -> None:
    rows = np.random.default_rng(1).standard_normal((40, 6))
    for some in (rows[:5], rows):  # fewer rows than columns, and more
        plane = principal(some, 2)
        assert (plane.directions[[0, 1], np.abs(plane.directions).argmax(1)] > 0).all()
        mirrored = principal(some * np.array([-1, 1, 1, 1, 1, -1]), 2)
        assert np.abs(mirrored.coordinates) == pytest.approx(np.abs(plane.coordinates))
        _, singular, right = np.linalg.svd(some - some.mean(0), full_matrices=False)
        assert np.abs(plane.directions) == pytest.approx(np.abs(right[:2]))
        assert plane.explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()))


def test_neighbours_are_those_of_all_cosines(small: pophood.LM) -> None:
    view = look.embeddings(small, word=" Madrid", k=7)
    rows = small.weights["embed.token"].astype(np.float64)
    target = small.tokenize(" Madrid")[0]
    towards = rows @ rows[target] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[target])
    towards[target] = -2
    best = np.argsort(-towards)[:7]
    assert view.word == (target, " Madrid")
    assert [id_ for id_, _, _ in view.neighbours] == best.tolist()
    assert [cosine for *_, cosine in view.neighbours] == pytest.approx(towards[best].tolist(), abs=1e-6)
    assert look.embeddings(small, word="Madrid").word == view.word, "with its space, as in a text"
    assert look.embeddings(small).word[1] == "father"


def test_equal_and_empty_rows_have_their_order() -> None:
    rows = np.array([[1, 0], [2, 0], [0, 0], [0, 3], [5, 0]], np.float32)
    assert nearest(rows, 0, 4) == [(1, 1.0), (4, 1.0), (2, 0.0), (3, 0.0)]


def test_cosines_of_pairs_and_controls(talk: pophood.LM) -> None:
    view = look.embeddings(talk, "cities")
    rows = talk.weights["embed.token"].astype(np.float64)

    def word(text: str) -> NDArray[np.float64]:
        return np.asarray(rows[talk.tokenize(text)].mean(0))

    for related in view.related:
        a, b = (word(text) for text in related.pair)
        assert related.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)
    assert view.related[2].pair == ("Madrid", "Spain") and view.related[2].tokens == (2, 1)
    others, random = view.controls
    assert (others.pairs, random.pairs) == (12 * 11 // 2 - 6, 1000)
    assert abs(random.mean) < 0.01 and random.low < 0 < random.high, "weights are random here"
    table = cosines(np.stack([word(text) for text in WORD_LISTS["cities"].words]))
    kept = [table[i, j] for i in range(12) for j in range(i) if j + 6 != i]
    assert others.mean == pytest.approx(np.mean(kept), abs=1e-9)
    assert look.embeddings(talk, "cities").controls == view.controls, "seeded"


def test_words_of_a_file_and_of_a_list(small: pophood.LM, tmp_path: Path) -> None:
    file = tmp_path / "sea.txt"
    file.write_text("boat harbour\nfish, salt wave\n\nboat\n", encoding="utf-8")
    view = look.embeddings(small, file)
    assert view.words.words == ("boat", "harbour", "fish", "salt", "wave") and view.words.name == "sea"
    assert [related.pair for related in view.related] == [("boat", "harbour")]
    plain = look.embeddings(small, ["boat", "fish", "salt"], spaced=True)
    assert [piece.text for piece in plain.pieces] == [" boat", " fish", " salt"]
    assert plain.related == () and len(plain.controls) == 1 and "pairs" not in plain.tables()
    assert overlapping(plain.figure()) == []


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, NotFound, "the lists are family, cities"),
        (b"", BadInput, "has 0 different words"),
        (b"one one one", BadInput, "has 1 different words"),
        (b"caf\xe9 au lait", BadInput, "is not UTF-8: byte 0xE9"),
        (b"x" * (1 << 20) + b" y", BadInput, "larger than"),
    ],
)
def test_files_that_are_no_words(
    small: pophood.LM, tmp_path: Path, content: bytes | None, error: type[PophoodError], words: str
) -> None:
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        look.embeddings(small, file)
    assert "\n" not in str(caught.value)


def test_a_word_that_is_no_token(small: pophood.LM) -> None:
    with pytest.raises(
        BadInput, match=r"'Madridista' is not a token of .*; its pieces are 'Mad', 'rid', 'ista'"
    ):
        look.embeddings(small, word="Madridista")
    with pytest.raises(BadInput, match="the word is empty"):
        look.embeddings(small, word="")
    with pytest.raises(BadInput, match=r"k must be 1\.\.50,256"):
        look.embeddings(small, k=0)


def test_the_title_and_the_picture(talk: pophood.LM) -> None:
    from dataclasses import replace

    view = look.embeddings(talk, "cities")
    named = replace(view, source=replace(view.source, model="gpt2"))
    assert named.title == "GPT-2 Token Embedding Space"
    figure = named.figure("dark")
    assert not figure.axes[0].axison
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert {label.partition(" (of ")[0] for label in labels} == set(CITIES)
    assert "Mad (of Madrid)" in labels and "London" in labels
    assert overlapping(figure) == [] and smallest_text(figure) >= 7


def test_on_the_real_model(smol: pophood.LM) -> None:
    view = look.embeddings(smol, "cities", spaced=True)
    assert view.position_shape is None and view.title.startswith("SmolLM2-135M-Instruct")
    related = np.mean([one.cosine for one in view.related])
    assert related > view.controls[0].mean + 0.05 > view.controls[1].mean
    assert any("share a direction" in note for note in view.notes)
    near = [text for _, text, _ in look.embeddings(smol, word=" Madrid").neighbours]
    assert " Barcelona" in near or " Spain" in near, near
