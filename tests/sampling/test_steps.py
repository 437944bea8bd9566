"""The chain: order, greedy decoding, the distribution of draws, and draws that depend on nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pophood.errors import BadInput, EngineError
from pophood.sampling import STEPS, Chain, SamplingSettings, chain, draw, sample, uniforms
from pophood.sampling.softmax import Floats, weights

ROWS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-20, 20, width=32))
PLAIN: dict[str, Any] = {"top_k": 0, "temperature": 1.0}
EVERYTHING: dict[str, Any] = {
    "repetition_penalty": 1.2,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "dry_multiplier": 0.8,
    "top_k": 30,
    "typical_p": 0.98,
    "top_p": 0.95,
    "min_p": 0.01,
    "xtc_probability": 0.5,
    "temperature": 0.9,
    "logit_bias": {1: 2.0},
}


def choose(chosen: Chain, logits: Floats, position: int = 0, sample: int = 0, seed: int = 1) -> int:
    return chosen.choose(logits, [1, 2, 1, 2], seed=seed, sample=sample, position=position).id


def test_the_chain_shows_itself() -> None:
    assert chain(SamplingSettings(**PLAIN)).describe() == "logits -> draw"
    assert chain(SamplingSettings(temperature=0)).describe() == "logits -> greedy"
    assert chain(SamplingSettings(**EVERYTHING)).describe() == (
        "logits -> bias on 1 token -> penalties (repetition 1.2, presence 0.1, frequency 0.1; last 64)"
        " -> dry 0.8 (base 1.75, free 2) -> top_k 30 -> typical_p 0.98 -> top_p 0.95 -> min_p 0.01"
        " -> xtc 0.1 (chance 0.5) -> temperature 0.9 -> draw"
    )
    assert [step.name for step in chain(SamplingSettings(**EVERYTHING)).steps] == list(STEPS)
    everything_greedy = SamplingSettings(**{**EVERYTHING, "temperature": 0})
    assert [step.name for step in chain(everything_greedy).steps] == ["bias", "penalties", "dry"]


def test_the_order_matters_and_is_obeyed() -> None:
    # temperature 2 flattens 0.7, 0.2, 0.1 to 0.52, 0.28, 0.20
    logits = np.log(np.array([0.7, 0.2, 0.1], dtype=np.float32))
    values: dict[str, Any] = {"top_k": 0, "top_p": 0.65, "temperature": 2.0}
    late = chain(SamplingSettings(**values)).candidates(logits, [])
    early = chain(SamplingSettings(**values, order=("temperature", "top_p"))).candidates(logits, [])
    assert late.ids is not None
    assert early.ids is not None
    assert late.ids.tolist() == [0]
    assert early.ids.tolist() == [0, 1]


@given(ROWS, st.sampled_from([0.0, 1e-300, 1e-9, 1e-5]))
def test_tiny_temperatures_are_greedy(logits: Floats, temperature: float) -> None:
    chosen = chain(SamplingSettings(temperature=temperature, typical_p=0.2, xtc_probability=1.0))
    assert {choose(chosen, logits, position=p) for p in range(5)} == {int(np.argmax(logits))}


def test_greedy_ties_go_to_the_lowest_id() -> None:
    assert choose(chain(SamplingSettings(temperature=0)), np.array([0, 3, 3, 3], dtype=np.float32)) == 1


@pytest.mark.parametrize("temperature", [1.1e-5, 1e-4, 1e3, 1e30, 1e300])
def test_extreme_temperatures_do_not_overflow(temperature: float) -> None:
    logits = np.array([-5e4, 5e4, 4e4, 1e30], dtype=np.float32)
    chosen = chain(SamplingSettings(temperature=temperature, top_k=0))
    ids = {choose(chosen, logits, position=p) for p in range(200)}
    assert ids == ({3} if temperature < 1e20 else {0, 1, 2, 3})


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_logits_that_are_not_numbers_are_an_engine_error(wrong: float, temperature: float) -> None:
    logits = np.array([0, wrong, 1], dtype=np.float32)
    with pytest.raises(EngineError, match="1 of 3 logits for position 7 are not finite"):
        choose(chain(SamplingSettings(temperature=temperature)), logits, position=7)


def test_logits_that_are_all_impossible_are_an_engine_error() -> None:
    with pytest.raises(EngineError, match="3 of 3 logits"):
        choose(chain(SamplingSettings()), np.full(3, -np.inf, dtype=np.float32))


def test_a_bias_forbids_prefers_and_knows_the_vocabulary() -> None:
    logits = np.array([5, 1, 0], dtype=np.float32)
    greedy: dict[str, Any] = {"temperature": 0}
    assert choose(chain(SamplingSettings(**greedy, logit_bias={0: -math.inf})), logits) == 1
    assert choose(chain(SamplingSettings(**greedy, logit_bias={2: 5.5})), logits) == 2
    with pytest.raises(
        BadInput, match="logit_bias names token 3; wanted an id below the vocabulary's size, 3"
    ):
        choose(chain(SamplingSettings(logit_bias={3: 1.0})), logits)
    with pytest.raises(BadInput, match="every token is forbidden"):
        choose(chain(SamplingSettings(logit_bias=dict.fromkeys(range(3), -math.inf))), logits)


def test_a_bias_after_a_filter_touches_only_what_is_left() -> None:
    logits = np.array([5, 4, 0], dtype=np.float32)
    late = SamplingSettings(top_k=2, logit_bias={2: 99.0, 1: 3.0}, order=("top_k", "bias"))
    left = chain(late).candidates(logits, [])
    assert left.ids is not None
    assert (left.ids.tolist(), left.logits.tolist()) == ([0, 1], [5, 7])


@pytest.mark.parametrize(
    ("wishes", "forbidden", "count"),
    [
        ({}, (), 5),
        ({}, (0, 3), 3),
        ({"logit_bias": {0: -math.inf}}, (), 4),
        ({"logit_bias": {0: -math.inf}}, (0, 1), 3),
        ({"top_k": 2}, (), 2),
        ({"top_k": 4}, (0, 1), 3),
        ({"temperature": 0}, (1,), 1),
    ],
)
def test_a_choice_says_among_how_many_it_was_made(
    wishes: dict[str, Any], forbidden: tuple[int, ...], count: int
) -> None:
    logits = np.array([5, 4, 3, 2, 1], np.float32)
    chosen = chain(SamplingSettings(**{**PLAIN, **wishes}))
    made = chosen.choose(logits, [], seed=1, sample=0, position=0, forbidden=forbidden)
    assert made.candidates == count and made.logit == logits[made.id]


def test_forbidden_tokens_are_never_chosen() -> None:
    logits = np.array([9, 1, 0], dtype=np.float32)
    for temperature in (0, 0.8):
        chosen = chain(SamplingSettings(temperature=temperature))
        ids = {chosen.choose(logits, [], seed=1, sample=0, position=p, forbidden=(0,)).id for p in range(50)}
        assert 0 not in ids
    assert logits[0] == 9  # the row itself is unchanged


def test_the_row_is_never_changed() -> None:
    logits = (np.random.default_rng(0).standard_normal(5_000) * 3).astype(np.float32)
    logits.flags.writeable = False
    chosen = chain(SamplingSettings(**EVERYTHING))
    for position in range(20):
        choose(chosen, logits, position)


def test_a_choice_tells_its_chance_among_how_many() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    for position in range(20):
        choice = sample(
            logits, SamplingSettings(top_k=2, temperature=1), [], seed=3, sample_index=0, position=position
        )
        assert choice.candidates == 2
        assert choice.logit == logits[choice.id]
        assert choice.final_probability == pytest.approx([0.625, 0.375][choice.id])
    greedy = sample(logits, SamplingSettings(temperature=0), [], seed=3, sample_index=0, position=0)
    assert (greedy.id, greedy.final_probability, greedy.candidates) == (0, 1.0, 1)


def normal_row(size: int, seed: int) -> Floats:
    return (np.random.default_rng(seed).standard_normal(size, dtype=np.float32) * 3).astype(np.float32)


LARGE = st.builds(normal_row, st.integers(500, 40_000), st.integers(0, 2**32))


@settings(max_examples=100)
@given(st.one_of(ROWS, LARGE), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_where_the_running_sum_passes(logits: Floats, number: float) -> None:
    place, probability = draw(logits, number)
    row = weights(logits).astype(np.float64)
    running = np.cumsum(row) / row.sum()
    assert running[place] >= number - 1e-7
    assert place == 0 or running[place - 1] <= number + 1e-7
    assert probability == pytest.approx(row[place] / row.sum())


@pytest.mark.parametrize("size", [512, 513, 40_000])
@pytest.mark.parametrize("number", [0.0, 0.25, 0.999, 1 - 2**-53])
def test_a_draw_from_many_never_takes_the_impossible(size: int, number: float) -> None:
    logits = np.full(size, -np.inf, dtype=np.float32)
    possible = [1, size // 3, size // 2, size - 2]
    logits[possible] = 0
    place, probability = draw(logits, number)
    assert place == possible[int(number * 4)]
    assert probability == 0.25


def test_draws_have_the_distribution_of_the_probabilities() -> None:
    probabilities = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    logits = np.log(probabilities).astype(np.float32)
    chosen = chain(SamplingSettings(**PLAIN))
    draws = 20_000
    counts = np.bincount([choose(chosen, logits, position=p) for p in range(draws)], minlength=6)
    expected = probabilities * draws
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 20.5  # 5 degrees of freedom: passed by chance once in a thousand


def test_samples_are_as_independent_as_positions() -> None:
    logits = np.zeros(10, dtype=np.float32)
    chosen = chain(SamplingSettings(**PLAIN))
    pairs = np.zeros((10, 10))
    for number in range(8_000):
        pairs[choose(chosen, logits, sample=number), choose(chosen, logits, sample=number, position=1)] += 1
    chi_square = float(((pairs - 80) ** 2 / 80).sum())
    assert 50 < chi_square < 149  # 99 degrees of freedom


@given(st.integers(0, 2**63), st.integers(0, 100), st.integers(0, 10_000))
def test_a_choice_depends_on_seed_sample_and_position_only(seed: int, number: int, position: int) -> None:
    logits = (np.random.default_rng(0).standard_normal(600) * 3).astype(np.float32)
    first = choose(chain(SamplingSettings(**EVERYTHING)), logits, position, number, seed)
    other = chain(SamplingSettings(**EVERYTHING))
    choose(other, logits, position + 1, number, seed)
    assert choose(other, logits, position, number, seed) == first


def test_a_row_of_a_batch_gives_what_the_row_alone_gives() -> None:
    # an odd size, so that rows of the batch start at every alignment
    batch = (np.random.default_rng(1).standard_normal((9, 4_999)) * 3).astype(np.float32)
    chosen = chain(SamplingSettings(**EVERYTHING))
    unfiltered = chain(SamplingSettings(**PLAIN))
    for number, row in enumerate(batch):
        for position in range(8):
            assert choose(chosen, row, position, number) == choose(chosen, row.copy(), position, number)
            assert choose(unfiltered, row, position, number) == choose(
                unfiltered, row.copy(), position, number
            )


def test_xtc_tosses_its_own_coin() -> None:
    logits = np.log(np.array([0.5, 0.4, 0.1], dtype=np.float32))
    values: dict[str, Any] = {**PLAIN, "xtc_threshold": 0.3}
    never = chain(SamplingSettings(**values))
    always = chain(SamplingSettings(**values, xtc_probability=1.0))
    half = chain(SamplingSettings(**values, xtc_probability=0.5))
    excluded = 0
    for position in range(400):
        acts = uniforms(1, 0, position)[1] < 0.5
        excluded += acts
        assert choose(half, logits, position) == choose(always if acts else never, logits, position)
        assert choose(always, logits, position) != 0
    assert 160 < excluded < 240


def test_penalties_see_the_window_only() -> None:
    logits = np.zeros(4, dtype=np.float32)
    short = chain(SamplingSettings(top_k=0, temperature=1, presence_penalty=1.0, penalty_window=2))
    whole = chain(SamplingSettings(top_k=0, temperature=1, presence_penalty=1.0, penalty_window=-1))
    assert short.candidates(logits, [0, 1, 2]).logits.tolist() == [0, -1, -1, 0]
    assert whole.candidates(logits, [0, 1, 2]).logits.tolist() == [-1, -1, -1, 0]
    assert short.candidates(logits, []).logits.tolist() == [0, 0, 0, 0]


def test_dry_penalises_the_token_that_would_go_on_but_no_breaker() -> None:
    logits = np.zeros(6, dtype=np.float32)
    values: dict[str, Any] = {"top_k": 0, "temperature": 1, "dry_multiplier": 1.0, "dry_base": 2.0}
    history = [1, 2, 3, 4, 0, 1, 2, 3]
    assert chain(SamplingSettings(**values)).candidates(logits, history).logits.tolist() == [
        0,
        0,
        0,
        0,
        -2,
        0,
    ]
    for breakers in (((4,),), ((1, 2),)):  # a breaker is never penalised; across one no repeat is counted
        broken = chain(SamplingSettings(**values, dry_breakers=breakers))
        assert broken.candidates(logits, history).logits.tolist() == [0, 0, 0, 0, 0, 0]
    window = chain(SamplingSettings(**values, dry_window=3))
    assert window.candidates(logits, history).logits.tolist() == [0, 0, 0, 0, 0, 0]
