"""Logits -> token: pure functions composed into a visible, settable chain (start with `steps.py`)."""

from pophood.sampling.randomness import SEED_LIMIT, draw_seed, philox4x64, uniforms
from pophood.sampling.repeats import breakers_of
from pophood.sampling.settings import GREEDY, RANGES, STEPS, Range, SamplingSettings, parse_order
from pophood.sampling.softmax import entropy, log_sum_exp, measures, ranked, weights
from pophood.sampling.steps import Candidates, Chain, Choice, Step, chain, draw, sample
from pophood.sampling.suggestions import GGUF_NAMES, HF_NAMES, Suggestions, read_suggestions

__all__ = [
    "GGUF_NAMES",
    "GREEDY",
    "HF_NAMES",
    "RANGES",
    "SEED_LIMIT",
    "STEPS",
    "Candidates",
    "Chain",
    "Choice",
    "Range",
    "SamplingSettings",
    "Step",
    "Suggestions",
    "breakers_of",
    "chain",
    "draw",
    "draw_seed",
    "entropy",
    "log_sum_exp",
    "measures",
    "parse_order",
    "philox4x64",
    "ranked",
    "read_suggestions",
    "sample",
    "uniforms",
    "weights",
]
