"""Several prompts in one batch: each gets what it gets alone, and passes are shared without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadInput, ContextOverflow, EngineError
from pophood.generate import GenerateSettings, generate_batch, passes
from pophood.generate.batch import BatchRun
from pophood.sampling import SamplingSettings
from tests.generate.mock import MockDecoder
from tests.generate.runs import END, TOKENIZER, WILD, by_sample, run
from tests.tiny import tiny_folder

PROMPTS = [[0, 1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [3, 1], [2, 2, 2]]


def batched(engine: MockDecoder, prompts: list[list[int]] = PROMPTS, **values: Any) -> BatchRun:
    together = values.pop("together", 16)
    settings = GenerateSettings(**{"sampling": WILD, "seed": 7, "max_tokens": 9, **values})
    return generate_batch(engine, TOKENIZER, prompts, settings, together=together)


def alone(prompt: list[int], **values: Any) -> list[tuple[Any, ...]]:
    """Return the tokens that `generate` gives."""
    first = values.get("first_sample", 0)
    return by_sample(list(run(MockDecoder(), prompt, **{"max_tokens": 9, **values})))[first]


# The same tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [1, 2, 16])
@pytest.mark.parametrize(
    "values",
    [{}, {"first_sample": 3}, {"details": "top"}, {"sampling": SamplingSettings(temperature=0)}],
    ids=["default", "sample 3", "details", "greedy"],
)
def test_every_prompt_gets_the_tokens_that_it_gets_alone(together: int, values: dict[str, Any]) -> None:
    engine = MockDecoder()
    found = by_sample(list(batched(engine, together=together, **values)))
    assert found == {i: alone(prompt, **values) for i, prompt in enumerate(PROMPTS)}
    assert engine.sequences == {}


def test_texts_stop_one_by_one() -> None:
    """With stops, samples end at different lengths; the reasons are kept by the prompt's index."""
    whole = batched(MockDecoder(), stop=("c", "d"), stop_ids=(END, 5), max_tokens=30)
    found = by_sample(list(whole))
    wanted = {i: alone(p, stop=("c", "d"), stop_ids=(END, 5), max_tokens=30) for i, p in enumerate(PROMPTS)}
    assert found == wanted and len({len(tokens) for tokens in wanted.values()}) > 1
    assert whole.finishes == {i: tokens[-1][-1] for i, tokens in wanted.items()}


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    folder: Path = tmp_path_factory.mktemp("batch") / "model"
    return pophood.load(tiny_folder(folder, "llama", seed=3), threads=2, precision="q8")


TEXTS: list[str | list[int]] = [
    "The capital of Spain is",
    "Once",
    "One, two, three, four, five, " * 6,
    [5, 9, 200],
]


@pytest.mark.parametrize("room", [3, 40, 512])
def test_results_of_the_engine_have_the_bits_of_their_own_runs(
    lm: pophood.LM, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of long prompts are read beside the tokens of the others, in calls of `room` tokens."""
    monkeypatch.setattr(passes, "ROOM", room)
    values: dict[str, Any] = {"seed": 5, "max_tokens": 12, "details": "top", "stop_ids": ()}
    found = lm.batch(TEXTS, together=3, **values)
    for prompt, one in zip(TEXTS, found, strict=True):
        other = lm.generate(prompt, **values)
        assert (one.text, one.completion, one.seed) == (other.text, other.completion, other.seed)
        assert [(t.id, t.logit, t.probability, t.entropy, t.top, t.finish) for t in one.tokens] == [
            (t.id, t.logit, t.probability, t.entropy, t.top, t.finish) for t in other.tokens
        ]


# Shared passes ----------------------------------------------------------------------------------------


def test_one_call_reads_all_prompts_and_each_other_call_goes_on_with_all() -> None:
    engine = MockDecoder()
    tokens = list(batched(engine, stop_ids=(), max_tokens=5))
    assert engine.calls == [[4, 1, 7, 2, 3], *[[1] * 5] * 4], "no padding, no call for one prompt"
    assert [token.sample for token in tokens] == [0, 1, 2, 3, 4] * 5


def test_the_next_prompt_takes_the_place_of_one_that_ended() -> None:
    engine = MockDecoder()
    list(batched(engine, [[1], [2, 3], [4, 5, 6]], together=2, stop_ids=(), max_tokens=2))
    assert engine.calls == [[1, 2], [1, 1], [3], [1]]
    engine = MockDecoder(context=8)
    found = by_sample(
        list(batched(engine, [[1] * 7, [2, 3], [4, 5, 6]], together=2, stop_ids=(), max_tokens=5))
    )
    assert [len(found[i]) for i in range(3)] == [2, 5, 5], "the window ends the first"
    assert engine.calls == [[7, 2], [1, 1], [1, 3], [1, 1], [1, 1], [1], [1]], "a prompt beside a token"


def test_long_prompts_are_read_in_pieces_beside_the_tokens_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "ROOM", 4)
    engine = MockDecoder()
    run_ = batched(engine, [[1], [2] * 7, [3] * 4], stop_ids=(), max_tokens=4)
    tokens = list(run_)
    assert engine.calls == [[1, 3], [1, 3], [1, 1, 2], [1, 1, 2], [1, 1], [1, 1], [1]]
    assert run_.timings.prefill_tokens == 12 and run_.timings.decode_tokens == 12 - 3
    assert run_.timings.prefill_seconds > 0 and run_.timings.decode_seconds > 0
    assert by_sample(tokens)[1] == alone([2] * 7, stop_ids=(), max_tokens=4)


def test_samples_of_one_prompt_share_every_pass(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tokens of eight samples are one pass for the prompt and nine of eight rows each."""
    rows: list[int] = []
    forward = lm.engine._native.forward

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(native, name)

        def forward(self, tokens: Any, *arguments: Any, **options: Any) -> Any:
            rows.append(len(tokens))
            return forward(tokens, *arguments, **options)

    native = lm.engine._native
    monkeypatch.setattr(lm.engine, "_native", Counted())
    prompt = [int(i) for i in np.random.default_rng(3).integers(3, 500, 20)]
    found = lm.samples(prompt, 8, max_tokens=10, seed=2, stop_ids=())
    assert rows == [20, *[8] * 9]
    assert len({one.completion for one in found}) > 1
    rows.clear()
    lm.batch([prompt, prompt[:7]], max_tokens=10, seed=2, stop_ids=())
    assert rows == [27, *[2] * 9], "different prompts share them too"


# Ends and refusals ------------------------------------------------------------------------------------


def test_a_run_that_is_closed_or_fails_leaves_no_sequence() -> None:
    engine = MockDecoder()
    with batched(engine) as running:
        next(running)
        assert len(engine.sequences) == len(PROMPTS)
    assert engine.sequences == {}
    engine = MockDecoder()
    engine.failure, engine.fail_at = EngineError("a NaN"), 3
    with pytest.raises(EngineError, match="a NaN"):
        list(batched(engine))
    assert engine.sequences == {}


def test_wrong_batches_are_refused_before_anything_is_computed(lm: pophood.LM) -> None:
    engine = MockDecoder(context=8)
    with pytest.raises(ContextOverflow):
        batched(engine, [[1], [2] * 9])
    with pytest.raises(BadInput, match="continues each prompt once, got samples=2"):
        batched(engine, samples=2)
    with pytest.raises(BadInput, match="together is 0; wanted 1 to 256"):
        batched(engine, together=0)
    with pytest.raises(BadInput, match="no setting is called speed"):
        lm.batch(["a"], speed=1)
    assert engine.calls == [] and lm.batch([]) == []
