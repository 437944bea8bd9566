"""Logits -> token: pure functions in a chain that users see and order. Start with `steps.py`."""

from pophood.sampling.penalties import breakers_of
from pophood.sampling.randomness import draw_seed, philox4x64, uniforms
from pophood.sampling.softmax import Likeliest, entropy, log_sum_exp, measures, ranked, weights
from pophood.sampling.steps import Candidates, Chain, ChainStep, Choice, chain, draw, sample
from pophood.sampling.suggestions import GGUF_NAMES, HF_NAMES, Suggestions, read_suggestions
from pophood.sampling_settings import GREEDY, RANGES, SEED_LIMIT, STEPS, Range, SamplingSettings, parse_order

__all__ = [
    "GGUF_NAMES",
    "GREEDY",
    "HF_NAMES",
    "RANGES",
    "SEED_LIMIT",
    "STEPS",
    "Candidates",
    "Chain",
    "ChainStep",
    "Choice",
    "Likeliest",
    "Range",
    "SamplingSettings",
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
