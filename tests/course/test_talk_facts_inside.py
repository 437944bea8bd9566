"""The talk's facts from page 21 on, from the input of the blocks to the statistics."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pophood
from pophood.course import Course
from pophood.course.deck.parts import formula_svg
from tests.course.walked import Walked, numbers, table_with

Walk = dict[str, Walked]
PROMPT = "The capital of Spain is"


def test_p21_before_the_blocks(walked: Walk, gpt2_shaped: pophood.LM) -> None:
    page = walked["before-the-blocks"]
    assert page.verdict.answer == "yes"
    token, position = (gpt2_shaped.weights[f"embed.{name}"] for name in ("token", "position"))
    total = token[[464, 3139, 286, 8602, 318]] + position[:5]
    assert np.array_equal(page.views[0].arrays()["first"], total)


def test_p22_a_block(walked: Walk) -> None:
    page = walked["block"]
    assert "in: (5, 768)  out: (5, 768)" in page.printed and page.verdict.answer == "7,087,872"
    assert "Attention comes first, then feed-forward" in page.said
    assert "layer norm before it and a residual connection around it" in page.said
    assert "dropout works only in training" in page.said


def test_p24_layer_norm(walked: Walk) -> None:
    arrays = walked["layer-norm"].views[0].arrays()
    normalised = np.asarray(arrays["normalised"], np.float64)
    assert np.abs(normalised.mean(axis=1)).max() < 1e-5
    assert np.abs(normalised.var(axis=1) - 1).max() < 1e-2
    rebuilt = normalised * np.asarray(arrays["gain"]) + np.asarray(arrays["shift"])
    assert np.abs(rebuilt - np.asarray(arrays["after"])).max() < 1e-5
    said = walked["layer-norm"].said
    assert (
        "over its 768 features: zero mean and unit variance, then a learned gain and a learned shift" in said
    )
    assert "hold *before* gain and shift" in said


def test_p25_residual(walked: Walk) -> None:
    page = walked["residual"]
    assert "X_new = X + dX" in page.said and "X_new = X + dX" in page.views[0].title
    assert numbers(page.views[0])["added"] == (2, 12, 5), "attention and feed-forward, in each block"
    assert "X + dX equals X_new within" in page.shown


def test_p26_dropout(walked: Walk) -> None:
    page = walked["dropout"]
    assert "outputs of attention and of feed-forward, before they are added to the stream" in page.said
    assert page.verdict.answer == "no" and "inference uses none" in page.views[0].title
    arrays = page.views[0].arrays()
    before, after, kept = (np.asarray(arrays[name]) for name in ("before", "after", "mask"))
    assert np.allclose(after[kept], before[kept] / 0.9) and not after[~kept].any()
    assert 0.07 < 1 - kept.mean() < 0.13


def test_p27_attention(walked: Walk) -> None:
    page = walked["attention"]
    assert "12 heads of 64, concatenated: 12 x 64 = 768" in page.printed
    pattern = np.asarray(page.views[0].arrays()["pattern"])
    assert pattern.shape == (12, 5, 5) and not np.triu(pattern, 1).any(), "itself and earlier tokens"
    assert np.abs(pattern.sum(-1) - 1).max() < 1e-5 and page.verdict.answer == "1"
    for fact in (
        "a **query**, a **key** and a **value**",
        "12 heads of d = 64",
        "Attention is masked: a token sees itself and earlier tokens",
        "concatenated, 12 x 64 = 768, and projected back",
        '"12 different linguists", who look at the text from different angles',
        "one head may become sensitive to syntax, others to subject-verb agreement, descriptive modifiers, "
        "names, punctuation, or longer-range context",
        "the linguists are an intuition",
        "head = softmax(Q Kᵀ / √d + mask) V",
    ):
        assert fact in page.said
    assert "Of the 144 heads of this model" in page.said


def test_p29_feed_forward(walked: Walk) -> None:
    page = walked["feed-forward"]
    assert page.verdict.answer == "3,072"
    for fact in (
        "768 -> 3072 -> GELU -> 3072 -> 768",
        "does the same for every token, and there is no cross-token interaction",
        '"a per-token processor"',
        "GELU(x) = x · ∫ from −∞ to x of exp(−t² / 2) dt / √(2π)",
    ):
        assert fact in page.said
    assert "4.7e-4, near |x| = 2.7" in page.said and "tanh form" in page.shown


def test_p29_the_stated_difference_of_the_two_gelus() -> None:
    from math import erf, pi, sqrt

    x = np.linspace(-6, 6, 120_001)
    exact = x * 0.5 * (1 + np.vectorize(erf)(x / sqrt(2)))
    tanh = 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
    difference = np.abs(exact - tanh)
    assert difference.max() == pytest.approx(4.7e-4, abs=5e-6)
    assert abs(x[difference.argmax()]) == pytest.approx(2.7, abs=0.05)


def test_p31_final_layer_norm(walked: Walk) -> None:
    page = walked["final-norm"]
    assert page.page.title == "The final norm" and "between the last block and the output" in page.said
    assert "The final layer norm is the same as the others" in page.said
    assert np.abs(np.asarray(page.views[0].arrays()["normalised"]).var(axis=1) - 1).max() < 1e-2


def test_p32_logits(walked: Walk, gpt2_shaped: pophood.LM) -> None:
    page = walked["logits"]
    assert page.verdict.answer == "50,257" and "logits = h_T W_O" in page.said
    for fact in (
        "the output matrix W_O, which is 768 x 50257 in GPT-2 small",
        "50,257 unnormalised scores",
        "P(i) = exp(logit_i) / Σ over j = 0..50256 of exp(logit_j)",
        "the default of its library (do_sample=False) is greedy",
    ):
        assert fact in page.said
    assert "token embedding again" in page.said and "(768, 50257)" in page.shown
    by_hand = np.asarray(page.views[0].arrays()["logits"])
    assert np.abs(by_hand - gpt2_shaped.logits(PROMPT)[-1]).max() <= 1e-3


def test_p33_top_ten_of_the_raw_logits(walked: Walk, gpt2_shaped: pophood.LM) -> None:
    table = table_with(walked["top-ten"].views[0], "token_id", "token_text", "logit", "probability")
    assert table.columns == ("token_id", "token_text", "logit", "probability") and table.bars == "probability"
    logits = gpt2_shaped.logits(PROMPT)[-1].astype(np.float64)
    best = np.argsort(-logits)[:10]
    assert table.column("token_id") == best.tolist()
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    shown = np.array([float(str(p)) for p in table.column("probability")])
    assert np.abs(shown - probabilities[best]).max() < 1e-6
    assert re.search(r"\d\.\d\d  +0\.\d{4}", str(table)), "logits to two places, probabilities to four"
    assert "without any temperature" in walked["top-ten"].said


def test_p34_statistics(walked: Walk) -> None:
    assert walked["statistics"].printed.splitlines() == [
        "Transformer blocks: 12",
        "Attention heads: 12",
        "Embedding size: 768",
        "Context length: 1024",
        "Vocabulary size: 50,257",
    ]
    fact = "different heads can focus on nearby words, repeated structure, or longer-range dependencies"
    assert fact in walked["statistics"].said


def test_every_formula_is_one_that_the_slides_can_draw(course: Course) -> None:
    cells = [cell for page in course.pages for cell in page.cells("formula")]
    assert len(cells) >= 6
    for cell in cells:
        plain, tex = cell.formula
        assert plain.strip() and formula_svg(tex, "dark").lstrip().startswith(b"<?xml")
    with pytest.raises(ValueError, match="nosuch"):
        formula_svg(r"\nosuch{x}", "dark")


def test_the_talks_fifth_part_comes_between_the_statistics_and_the_wrap_up(walked: Walk) -> None:
    assert "The talk's contents name a fifth part, fine-tuning" in walked["training-text"].said
    assert "the blocks, probabilities, fine-tuning" in walked["wrap-up"].said
    names = list(walked)
    assert names.index("statistics") < names.index("training-text") < names.index("wrap-up")
