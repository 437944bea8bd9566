"""Scores of heads on patterns that one can check by eye, on the repeated random text, and of a real model."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood import look
from pophood.look.math.heads import (
    LABELS,
    NO_LABEL,
    PERIOD,
    REPEATS,
    HeadScores,
    head_scores,
    measure_heads,
    probe_ids,
)
from tests.look.taught_heads import TAUGHT, taught_model

Floats = NDArray[np.float32]
IDS = np.array([9, 1, 2, 3, 1, 2, 3])  # a start token, then a text of three that repeats


def looking_at(*keys: int) -> Floats:
    """Return a pattern whose query t gives all its weight to keys[t]."""
    pattern = np.zeros((len(keys), len(keys)), np.float32)
    pattern[np.arange(len(keys)), keys] = 1
    return pattern


@pytest.mark.parametrize(
    ("label", "keys"),
    [
        ("previous token", (0, 0, 1, 2, 3, 4, 5)),
        ("first token", (0, 0, 0, 0, 0, 0, 0)),
        ("same token", (0, 1, 2, 3, 1, 2, 6)),
        ("induction", (0, 0, 0, 0, 2, 3, 4)),
    ],
)
def test_each_label_by_eye(label: str, keys: tuple[int, ...]) -> None:
    scores = head_scores(looking_at(*keys), IDS)
    assert scores[LABELS.index(label)] == 1
    assert HeadScores(scores[None, None]).label(0, 0) == label


def test_no_label_below_the_convention() -> None:
    scores = HeadScores(np.array([[[0.33, 0.6, 0.1, 0.0], [0.3, 0.67, 0.1, 0.0]]], np.float32))
    assert [scores.label(0, head) for head in (0, 1)] == [NO_LABEL, "first token"]
    assert scores.counts() == {**dict.fromkeys(LABELS, 0), "first token": 1, NO_LABEL: 1}
    assert scores.best(0, 0) is None and scores.best(0, 1) == 1


@pytest.mark.parametrize("sink", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("label", "keys"),
    [
        ("previous token", (0, 0, 1, 2, 3, 4, 5)),
        ("same token", (0, 1, 2, 3, 1, 2, 6)),
        ("induction", (0, 0, 0, 0, 2, 3, 4)),
    ],
)
def test_the_weight_on_the_first_token_is_taken_out_before_a_head_gets_a_label(
    sink: float, label: str, keys: tuple[int, ...]
) -> None:
    """A head that rests on the first token gets the label of its remaining weight."""
    pattern = sink * looking_at(0, 0, 0, 0, 0, 0, 0) + (1 - sink) * looking_at(*keys)
    scores = head_scores(pattern.astype(np.float32), IDS)
    assert HeadScores(scores[None, None]).label(0, 0) == label
    assert scores[LABELS.index("first token")] >= sink - 1e-6


def test_a_head_that_only_rests_is_a_sink_and_has_no_other_score() -> None:
    scores = head_scores(looking_at(*[0] * 7), np.arange(7))
    assert scores.tolist() == [0, 1, 0, 0] and HeadScores(scores[None, None]).label(0, 0) == "first token"


def test_scores_are_what_their_definitions_say() -> None:
    generator = np.random.default_rng(0)
    pattern = np.tril(generator.random((2, 7, 7), np.float32))
    pattern /= pattern.sum(-1, keepdims=True)
    for head, row in zip(pattern, head_scores(pattern, IDS), strict=True):

        def share(weights: list[tuple[int, float]], head: Floats = head) -> float:
            """Sum the weights, divided by what these queries put on tokens other than the first."""
            return float(sum(w for _, w in weights) / sum(1 - head[t, 0] for t, _ in weights))

        previous = share([(t, head[t, t - 1]) for t in range(2, 7)])
        same = share([(t, sum(head[t, j] for j in range(1, t + 1) if IDS[j] == IDS[t])) for t in range(1, 7)])
        after = [(t, [j + 1 for j in range(t) if IDS[j] == IDS[t]]) for t in range(7)]
        induction = share([(t, sum(head[t, j] for j in keys)) for t, keys in after if keys])
        first = np.mean([head[t, 0] for t in range(1, 7)])
        assert row == pytest.approx([previous, first, same, induction], rel=1e-5)


def test_the_most_informative_head_is_one_that_shows_something_on_any_text() -> None:
    values = np.zeros((2, 4, 4), np.float32)
    values[0, 1, LABELS.index("first token")] = 1.0
    values[1, 2, LABELS.index("same token")] = 0.9
    scores = HeadScores(values)
    assert scores.most_informative() == (1, 2) and scores.most_informative(0) == (0, 1)
    values[1, 3, LABELS.index("induction")] = 0.5
    assert scores.most_informative() == (1, 3), "induction before the same token"
    values[0, 0, LABELS.index("previous token")] = 0.4
    values[0, 2, LABELS.index("previous token")] = 0.8
    assert scores.most_informative() == (0, 2) and scores.most_informative(1) == (1, 3)


def test_a_text_of_one_token_has_no_scores() -> None:
    assert head_scores(np.ones((3, 1, 1), np.float32), np.array([5])).tolist() == [[0] * 4] * 3


def test_the_text_that_repeats(small: pophood.LM, rotary: pophood.LM) -> None:
    ids = probe_ids(small)
    assert ids == probe_ids(small) and len(ids) == 1 + PERIOD * REPEATS
    assert ids[0] == 50_256 and 50_256 not in ids[1:]  # GPT-2's end of text opens it
    assert ids[1 : 1 + PERIOD] * REPEATS == ids[1:] and len(set(ids)) == 1 + PERIOD
    assert tuple(probe_ids(rotary)[:1]) == tuple(rotary.bundle.tokenizer.start_ids)


def test_a_short_context_gets_a_short_text(small_folder: object) -> None:
    lm = pophood.load(str(small_folder), context=13)
    assert len(probe_ids(lm)) == 1 + 3 * REPEATS
    assert measure_heads(lm).values.shape == (4, 4, 4)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return pophood.load(taught_model(tmp_path_factory.mktemp("heads") / "taught"))


@pytest.mark.parametrize(("place", "habit"), TAUGHT.items())
def test_a_head_that_was_taught_a_habit_gets_its_label(
    taught: pophood.LM, place: tuple[int, int], habit: str
) -> None:
    scores = measure_heads(taught)
    assert scores.label(*place) == habit
    assert scores.values[*place, LABELS.index(habit)] > 0.6


def test_attention_opens_on_the_most_informative_head(taught: pophood.LM) -> None:
    view = look.attention(taught, "one two three one two three")
    assert (view.layer, view.head) == (0, 0) and "measured as previous token" in view.title
    assert look.attention(taught, "one two", layer=1).head == 0, "induction before the sink"
    resting = look.attention(taught, "one two three one two three", layer=1, head=1)
    assert any("of its weight on position 0" in note for note in resting.notes)
    assert not any("of its weight on position 0" in note for note in view.notes)


def test_a_real_model_has_every_kind(smol: pophood.LM) -> None:
    """54 % of its heads were labelled as sinks before the weight on the first token was left out."""
    scores = measure_heads(smol)
    counts = scores.counts()
    assert sum(counts.values()) == 30 * 9 and min(counts.values()) >= 1
    assert counts["first token"] <= 0.25 * 270
    assert sum(counts[name] for name in LABELS if name != "first token") >= 0.2 * 270
    first_layer = [int((scores.values[..., i] >= 0.4).any(1).argmax()) for i in range(4)]
    assert first_layer[0] < first_layer[3], "induction needs a previous-token head in an earlier layer"
