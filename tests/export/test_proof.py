"""The figures of a proof, checked by hand on a few logits, and the start of the greedy continuation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pophood.export.merged import Merged
from pophood.export.proof import Reading, compare, passage_ids, read_through
from pophood.model.bundle import open_bundle
from tests.tiny import tiny_folder


def reading(rows: list[list[float]], greedy: tuple[int, ...]) -> Reading:
    return Reading(np.array(rows, np.float32), greedy)


def test_the_figures_of_a_comparison_by_hand() -> None:
    meant = reading([[0, 0], [0, 1], [4, 0], [0, 0]], (5, 6, 7))
    other = reading([[0, 0], [0, 3], [4, 0.5], [0, 1]], (5, 9, 7))
    made = compare(meant, other, 8, "q8_0")
    assert (made.tensors, made.tokens, made.bits_equal) == (8, 4, False)
    assert made.largest_difference == 2, "of all logits at all positions"
    assert made.same_top == 3 / 4
    assert (made.greedy, made.greedy_of) == (1, 3)

    def kl(p: list[float], q: list[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    def chances(gap: float) -> list[float]:
        return [1 / (1 + math.exp(gap)), 1 / (1 + math.exp(-gap))]

    pairs = [(0.0, 0.0), (1.0, 3.0), (-4.0, -3.5), (0.0, 1.0)]
    assert made.kl == pytest.approx(sum(kl(chances(a), chances(b)) for a, b in pairs) / 4)
    same = compare(meant, meant, 8, "f32")
    assert same.bits_equal and (same.largest_difference, same.kl, same.same_top) == (0, 0, 1)
    assert same.greedy == same.greedy_of == 3


@pytest.mark.parametrize(("positions", "prompt", "steps"), [(128, 32, 64), (48, 24, 24)])
def test_the_greedy_continuation_begins_after_32_tokens_or_half_the_context(
    tmp_path: Path, positions: int, prompt: int, steps: int
) -> None:
    bundle = open_bundle(tiny_folder(tmp_path / "m", "llama", n_layer=1, n_positions=positions))
    ids = passage_ids(bundle)
    read = read_through(bundle.config, Merged(bundle.config, bundle.weights), ids, 1)
    assert len(read.logits) == len(ids) <= positions and len(read.greedy) == steps
    tops = read.logits.argmax(axis=1)
    assert read.greedy[0] == tops[prompt - 1] != tops[prompt]
