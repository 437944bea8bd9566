"""The loop on a mock model: batches, prefixes, stops and details."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.errors import BadInput, ContextOverflow
from pophood.generate import GenerateSettings, PrefixCache, generate
from pophood.sampling import SamplingSettings
from tests.generate.mock import MockDecoder, MockTokenizer
from tests.generate.runs import END, LETTERS, PROMPT, TOKENIZER, by_sample, run, scripted, text_of

# ---- one sample, many samples ----


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_of_a_batch_is_the_sample_alone(seed: int) -> None:
    engine = MockDecoder()
    values: dict[str, Any] = {"seed": seed, "stop": ("END", "ab\n"), "max_tokens": 30}
    batch = by_sample(list(run(engine, samples=6, **values)))
    assert len({len(tokens) for tokens in batch.values()}) > 1  # they ended at different steps
    for sample, tokens in batch.items():
        alone = by_sample(list(run(MockDecoder(), samples=1, first_sample=sample, **values)))
        assert alone == {sample: tokens}
    assert engine.sequences == {}


def test_the_prompt_is_computed_once_and_finished_samples_leave_the_batch() -> None:
    engine = MockDecoder()
    tokens = list(run(engine, samples=5))
    assert engine.calls[0] == [len(PROMPT)]
    lengths = sorted(len(made) for made in by_sample(tokens).values())
    expected = [[1] * sum(length > step for length in lengths) for step in range(1, lengths[-1])]
    assert engine.calls[1:] == expected


def test_a_continued_text_is_the_text_of_one_run() -> None:
    long = list(run(MockDecoder(), max_tokens=12, stop_ids=()))
    first = list(run(MockDecoder(), max_tokens=5, stop_ids=()))
    rest = list(run(MockDecoder(), PROMPT + [t.id for t in first], max_tokens=7, stop_ids=()))
    assert [t.id for t in first + rest] == [t.id for t in long]


def test_a_drawn_seed_repeats_the_run() -> None:
    first = run(MockDecoder(), seed=None)
    tokens = by_sample(list(first))
    assert by_sample(list(run(MockDecoder(), seed=first.seed))) == tokens
    assert run(MockDecoder(), seed=None).seed != first.seed


def test_positions_seconds_and_timings() -> None:
    this = run(MockDecoder(), samples=2, stop_ids=(), max_tokens=4)
    tokens = list(this)
    assert [t.position for t in tokens if t.sample == 1] == [4, 5, 6, 7]
    assert all(0 < a.seconds <= b.seconds for a, b in itertools.pairwise(tokens))
    assert (this.timings.prefill_tokens, this.timings.decode_tokens) == (4, 6)
    assert this.timings.prefill_seconds > 0
    assert this.timings.decode_rate is not None
    assert this.finishes == {0: "length", 1: "length"}


# ---- prefix reuse ----


@pytest.mark.parametrize("samples", [1, 3])
def test_prefix_reuse_changes_no_token(samples: int) -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    first = list(run(engine, prefix=prefix, samples=samples, stop_ids=()))
    assert len(engine.sequences) == 1
    made = [t.id for t in first if t.sample == 0]
    assert list(engine.sequences.values()) == [[*PROMPT, *made[:-1]]]
    prompts = [[*PROMPT, *made, 5], [*PROMPT, *made[:3], 9], [3, 3], [3, 3], PROMPT[:2]]
    reused = []
    for prompt in prompts:
        again = run(engine, prompt, prefix=prefix, samples=samples, seed=3)
        fresh = run(MockDecoder(), prompt, samples=samples, seed=3)
        assert by_sample(list(again)) == by_sample(list(fresh))
        assert len(engine.sequences) == len(prefix)
        reused.append(again.reused)
    # the last generated token was never fed, and the last of a prompt is always computed
    assert reused == [len(PROMPT) + len(made) - 1, len(PROMPT) + 3, 0, 1, 1]


def test_a_second_run_may_begin_before_the_first_has_ended() -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    first, second = run(engine, prefix=prefix), run(engine, [5, 6], prefix=prefix)
    tokens = [(next(first), next(second)) for _ in range(3)]
    assert len(tokens) == 3
    first.close()
    second.close()
    assert len(engine.sequences) == len(prefix) == 2
    assert run(engine, [5, 6, 7], prefix=prefix).prompt_ids and prefix.take([5, 6, 7]).length == 2


# ---- stops ----


def test_a_stop_token_ends_a_sample_and_is_not_shown() -> None:
    tokens = scripted([0, 11, END])
    assert [t.text for t in tokens] == ["a", "x", ""]
    assert [t.finish for t in tokens] == [None, None, "stop"]
    shown = scripted([0, 11, END], special=True)
    assert text_of(shown) == "ax<end>"


def test_the_callers_stop_tokens_replace_the_models() -> None:
    assert [t.id for t in scripted([0, 11, END, 1], stop_ids=(11,))] == [0, 11]
    everything = scripted([0, 11, END, 1], stop_ids=())
    assert [t.id for t in everything] == [0, 11, END, 1]
    assert text_of(everything) == "axb"


def test_a_stop_string_over_several_tokens_is_never_shown() -> None:
    tokens = scripted([0, 8, 9, 10, 11], stop=("END",))  # a E N D
    assert [(t.text, t.finish) for t in tokens] == [("a", None), ("", None), ("", None), ("", "stop_string")]


def test_a_stop_string_inside_a_token_cuts_it() -> None:
    assert text_of(scripted([3, 4, 11], stop=("b",))) == "a"
    tokens = scripted([0, 8, 9, 11], stop=("END",))  # a E N x: held back, then shown
    assert [t.text for t in tokens] == ["a", "", "", "ENx"]


def test_text_held_back_is_shown_at_the_end() -> None:
    tokens = scripted([0, 8, 9], stop=("END",))
    assert [(t.text, t.finish) for t in tokens] == [("a", None), ("", None), ("EN", "length")]
    tokens = scripted([0, 8, END], stop=("END",))
    assert [(t.text, t.finish) for t in tokens] == [("a", None), ("", None), ("E", "stop")]


def test_half_a_character_waits_and_ends_as_the_replacement_character() -> None:
    assert [t.text for t in scripted([0, 15, 0])][1] == ""
    assert text_of(scripted([0, 15])) == "a\N{REPLACEMENT CHARACTER}"


TEXTS = st.lists(st.integers(0, len(LETTERS) - 1), min_size=1, max_size=25)
STOPS = st.lists(st.text(alphabet="abcEND\n é", min_size=1, max_size=4), max_size=3)


@settings(max_examples=200, deadline=None)
@given(TEXTS, STOPS, st.integers(0, 4))
def test_stop_strings_cut_where_a_search_afterwards_would(
    script: list[int], stop: list[str], least: int
) -> None:
    least = min(least, len(script))
    sampling = SamplingSettings(temperature=0, min_tokens=least)
    tokens = scripted(script, stop=tuple(stop), sampling=sampling)
    free, watched = TOKENIZER.decode(script[:least]), ""
    for made, token in enumerate(
        script[least:], least + 1
    ):  # stop strings count from the token after min_tokens
        watched += TOKENIZER.decode([token])
        ends = [
            (end, -len(s))
            for s in stop
            for end in range(len(s), len(watched) + 1)
            if watched[:end].endswith(s)
        ]
        if ends:
            end, length = min(ends)
            assert text_of(tokens) == free + watched[: end + length]
            assert (len(tokens), tokens[-1].finish) == (made, "stop_string")
            return
    assert text_of(tokens) == free + watched
    assert (len(tokens), tokens[-1].finish) == (len(script), "length")


def test_a_minimum_forbids_every_stop_until_it_is_reached() -> None:
    engine = MockDecoder()
    engine.script, engine.prompt_length = [END] * 10, len(PROMPT)
    sampling = SamplingSettings(temperature=0, min_tokens=5)
    tokens = list(run(engine, sampling=sampling))
    assert len(tokens) == 6
    assert END not in [t.id for t in tokens[:5]]
    assert tokens[-1].finish == "stop"


def test_the_context_window_ends_a_sample() -> None:
    engine = MockDecoder(context=8)
    tokens = list(run(engine, stop_ids=(), max_tokens=None))
    assert [t.position for t in tokens] == [4, 5, 6, 7, 8]  # the last one is generated, not fed
    assert tokens[-1].finish == "context"
    full = list(run(MockDecoder(context=4), stop_ids=()))
    assert [t.finish for t in full] == ["context"]


# ---- prompts ----


def test_a_prompt_over_the_window_is_an_error_before_anything_is_computed() -> None:
    engine = MockDecoder(context=8)
    with pytest.raises(ContextOverflow, match="the text has 9 tokens; the context window holds 8"):
        run(engine, [1] * 9)
    assert (engine.calls, engine.sequences) == ([], {})


@pytest.mark.parametrize(("kind", "kept"), [("left", (3, 4, 5, 6, 7)), ("middle", (0, 1, 5, 6, 7))])
def test_a_chosen_truncation_is_told(kind: str, kept: tuple[int, ...]) -> None:
    engine = MockDecoder(context=7)
    this = run(engine, list(range(8)), truncate=kind, max_tokens=3, stop_ids=())
    assert this.prompt_ids == kept
    assert this.truncation is not None
    assert (this.truncation.kind, this.truncation.got, this.truncation.dropped) == (kind, 8, 3)
    assert len(list(this)) == 3
    assert run(engine, [1, 2]).truncation is None


def test_an_empty_prompt_begins_as_a_document_does() -> None:
    engine = MockDecoder()
    settings = GenerateSettings(max_tokens=1)
    started: Any = MockTokenizer([b"a", b"b"], start_ids=(1, 0))
    assert generate(engine, started, [], settings).prompt_ids == (1, 0)
    like_gpt2: Any = MockTokenizer([b"a", b""], specials={1: "<|endoftext|>"})
    assert generate(engine, like_gpt2, [], settings).prompt_ids == (1,)
    with pytest.raises(BadInput, match="the prompt is empty and this model has no token to start from"):
        generate(engine, TOKENIZER, [], settings)


def test_only_the_beginning_of_a_text_loses_its_first_space() -> None:
    spaced: Any = MockTokenizer([b" a", b""], specials={1: "<s>"}, start_ids=(1,))
    for prompt, text in (([0], " a a"), ([1], "a a"), ([], "a a"), ([1, 0], " a a")):
        engine = MockDecoder(vocab_size=2)
        bias = SamplingSettings(temperature=0, logit_bias={1: -math.inf})
        run = generate(engine, spaced, prompt, GenerateSettings(sampling=bias, max_tokens=2))
        assert text_of(list(run)) == text


@pytest.mark.parametrize("prompt", [[16], [-1], [0, 99]])
def test_a_token_outside_the_vocabulary_is_named(prompt: list[int]) -> None:
    with pytest.raises(BadInput, match=rf"token id {prompt[-1]} is not in the vocabulary: wanted 0\.\.15"):
        run(MockDecoder(), prompt)


def test_a_prompt_of_text_is_refused_and_numpy_ids_are_not() -> None:
    with pytest.raises(BadInput, match="neither text nor a sequence of token ids"):
        run(MockDecoder(), "abc")  # type: ignore[arg-type]
    assert run(MockDecoder(), list(np.array([1, 2]))).prompt_ids == (1, 2)


# ---- details ----


def test_details_are_the_models_own_before_any_step() -> None:
    tokens = list(run(MockDecoder(), details="top", top=3, sampling=SamplingSettings(top_k=2), max_tokens=5))
    engine = MockDecoder()
    history = list(PROMPT)
    for token in tokens:
        row = engine._row(history).astype(np.float64)
        probabilities = np.exp(row) / np.exp(row).sum()
        assert token.probability == pytest.approx(probabilities[token.id], rel=1e-5)
        assert token.entropy == pytest.approx(-(probabilities * np.log(probabilities)).sum(), rel=1e-5)
        assert token.logit == pytest.approx(row[token.id])
        assert token.top is not None
        order = np.argsort(-row, kind="stable")[:3].tolist()
        assert [entry[0] for entry in token.top] == order
        assert [entry[1] for entry in token.top] == [TOKENIZER.token_text(i) for i in order]
        assert [entry[3] for entry in token.top] == pytest.approx(probabilities[order].tolist(), rel=1e-5)
        assert token.final_probability >= (token.probability or 0)
        with pytest.warns(DeprecationWarning, match=r"now Token\.final_probability"):
            assert token.chance == token.final_probability
        history.append(token.id)


def test_details_cost_nothing_unless_asked_for() -> None:
    plain = list(run(MockDecoder()))
    assert all(t.probability is None and t.entropy is None and t.top is None for t in plain)
    some = list(run(MockDecoder(), details="probability"))
    assert all(t.probability is not None and t.entropy is not None and t.top is None for t in some)
    assert by_sample(some) == by_sample(plain)
    assert all(math.isfinite(t.logit) for t in plain)
