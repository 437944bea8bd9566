"""The loss on data by the engine: every learned id counts once, however a text is cut into rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadInput
from pophood.model.lm import LM
from pophood.train.data import IGNORED, DataOptions, Examples, PackedSampler, open_data
from pophood.train.loop.evaluation import evaluate, loss_of, stretches
from tests.tiny import tiny_folder
from tests.train.data.samples import write_lines

WORDS = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n"


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return pophood.load(tiny_folder(tmp_path_factory.mktemp("model") / "llama", "llama"), threads=1)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Data with a text longer than a row, texts of several lengths, and chats, some of which are cut."""
    found = {kind: tmp_path / f"{kind}.txt" for kind in ("one", "lines")}
    found["one"].write_text(20 * WORDS, encoding="utf-8")
    found["lines"].write_text("\n".join(f"{n} {WORDS[: 3 * n]}" for n in range(1, 25)), encoding="utf-8")
    answers = [{"prompt": f"Question {n}?", "completion": WORDS * (1 + n % 4)} for n in range(12)]
    weighed = [
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": WORDS, "weight": n % 2},
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": f"Well {n}."},
            ]
        }
        for n in range(6)
    ]
    found["answers"] = write_lines(tmp_path / "answers.jsonl", answers)
    found["weighed"] = write_lines(tmp_path / "weighed.jsonl", weighed)
    return found


def opened(lm: LM, path: Path, **options: Any) -> Examples:
    given = DataOptions(
        format="lines" if path.stem == "lines" else "auto",
        validation=0,
        cache=path.parent / "kept",
        **options,
    )
    return open_data(path, lm.bundle.tokenizer, lm.chat_template, given).train


def learned_ids(examples: Examples) -> list[int]:
    """The number of learned ids of each document, without those that are cut off."""
    return [int(example.trained.sum()) for example in examples]


@pytest.mark.parametrize("kind", ["one", "lines", "answers", "weighed"])
@pytest.mark.parametrize("length", [24, 32, 63, 128])
@pytest.mark.parametrize("long", ["auto", "split", "cut"])
def test_every_learned_id_counts_once(
    kind: str, length: int, long: str, lm: LM, files: dict[str, Path]
) -> None:
    """The first id of a piece does not count: the piece before predicts it, or nothing does."""
    examples = opened(lm, files[kind], length=length, long=long)
    found = loss_of(lm.engine, examples)
    counts = learned_ids(examples)
    sampler = PackedSampler(examples, 2, length, seed=0)
    batches = [sampler.batch(0, index) for index in range(sampler.batches_per_epoch(0))]
    assert (
        sum(np.count_nonzero(batch.targets != IGNORED) for batch in batches) == found.tokens
    )  # training learns what is evaluated
    assert found.tokens == sum(counts) > 0
    assert found.documents == sum(count > 0 for count in counts)
    if long == "split":
        whole = opened(lm, files[kind], length=4096)
        assert found.tokens == sum(learned_ids(whole))  # nothing is lost by splitting


def test_a_text_longer_than_a_row_by_hand(lm: LM, files: dict[str, Path]) -> None:
    """The loss is the mean log-probability of all ids of all pieces but their first."""
    examples = opened(lm, files["one"], length=32)
    pieces = list(stretches(examples))
    ids = np.concatenate([ids[1:] for _, ids, _ in pieces])
    assert len(pieces) > 3 and ids.tolist() == examples[0].ids[1:].tolist()
    total = 0.0
    for _, ids, _ in pieces:
        logits = lm.logits(ids.tolist()).astype(np.float64)[:-1]
        logits -= logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        total -= float(np.log(probabilities[np.arange(len(ids) - 1), ids[1:]]).sum())
    found = loss_of(lm.engine, examples)
    assert found.tokens == len(examples[0].ids) - 1
    assert found.loss == pytest.approx(total / found.tokens, rel=1e-5)


def test_some_of_many_documents(lm: LM, files: dict[str, Path]) -> None:
    examples = opened(lm, files["lines"], length=64)
    counts = learned_ids(examples)
    found = loss_of(lm.engine, examples, most_tokens=sum(counts) // 3)
    chosen = [document for document, _, _ in stretches(examples, sum(counts) // 3)]
    assert found.documents == len(chosen) < len(counts)
    assert found.tokens == sum(counts[document] for document in chosen)


def test_nothing_learned_is_no_number(lm: LM, tmp_path: Path) -> None:
    silent = write_lines(tmp_path / "a.jsonl", [{"prompt": WORDS * 3, "completion": "yes"}])
    found = loss_of(lm.engine, opened(lm, silent, length=8))
    assert (found.tokens, found.documents) == (0, 0) and math.isnan(found.loss)


def test_rows_that_do_not_fit_the_context_are_refused(lm: LM, files: dict[str, Path]) -> None:
    context = lm.engine.context
    options = DataOptions(length=context + 1, cache=files["one"].parent)
    with pytest.raises(
        BadInput, match=f"rows of {context + 1:,} positions do not fit into a context of {context:,}"
    ):
        evaluate(lm, files["one"], options)
    assert evaluate(lm, files["one"], DataOptions(length=context, cache=files["one"].parent)).tokens > 0
