"""The cost of a grammar, and the gain of forced tokens, with the real SmolLM2.

- A JSON text that does not end (one string) against free text: tokens/s of decoding, greedy, after the first
  token; both are one pass per token. Bar: 0.97 times free decoding; ceiling 1.
- A form of constant keys and a few free values, with forced tokens read in one pass against one at a time:
  the same tokens, which is checked. Bar: 1.1 times; ceiling: tokens per pass, if a pass took the same time
  however many tokens it reads.

Run: python benchmarks/grammar.py [--rounds 10] [--threads 2] [--steps 128]
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

from _models import smollm2_gguf
from _timing import interleaved, judged, paired_ratio, report

import pophood
from pophood.grammar import Grammar, matching

PROMPT = "Here is a person who lives in a small town by the sea, as JSON:\n"
ENDLESS = {"type": "string", "minLength": 20_000}
FORM = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 12},
        "last_name": {"type": "string", "maxLength": 12},
        "year_of_birth": {"type": "integer", "minimum": 1900, "maximum": 2020},
        "favourite_colour": {"enum": ["red", "green", "blue"]},
        "has_a_driving_licence": {"type": "boolean"},
        "address": {
            "type": "object",
            "properties": {
                "street_and_number": {"type": "string", "maxLength": 20},
                "country_of_residence": {"const": "United Kingdom of Great Britain and Northern Ireland"},
            },
            "required": ["street_and_number", "country_of_residence"],
            "additionalProperties": False,
        },
    },
    "required": [
        *("first_name", "last_name", "year_of_birth", "favourite_colour", "has_a_driving_licence", "address"),
    ],
    "additionalProperties": False,
}


def rate(lm: pophood.LM, **settings: Any) -> float:
    """Tokens/s of decoding, without reading the prompt and the first token."""
    made = lm.generate(PROMPT, temperature=0, **settings)
    return (len(made.tokens) - 1) / (made.tokens[-1].seconds - made.tokens[0].seconds)


def form_rate(lm: pophood.LM, most: int) -> float:
    """Tokens/s of the form with at most so many forced tokens in a pass."""
    usual, matching.MOST_FORCED = matching.MOST_FORCED, most
    try:
        return rate(lm, grammar=Grammar.json_schema(FORM), max_tokens=400)
    finally:
        matching.MOST_FORCED = usual


def shares(lm: pophood.LM) -> tuple[int, int]:
    """Tokens of the form and passes that they take, after checking that forcing changes no token."""
    grammar = Grammar.json_schema(FORM)
    passes = 0
    whole = lm.engine.summary

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal passes
        passes += 1
        return whole(*args, **options)

    lm.engine.summary = counted  # type: ignore[method-assign]
    forced = [
        token.id for token in lm.generate(PROMPT, grammar=grammar, temperature=0, max_tokens=400).tokens
    ]
    del lm.engine.summary
    usual, matching.MOST_FORCED = matching.MOST_FORCED, 0
    alone = [token.id for token in lm.generate(PROMPT, grammar=grammar, temperature=0, max_tokens=400).tokens]
    matching.MOST_FORCED = usual
    assert forced == alone, "the same tokens"
    return len(forced), passes


def main() -> None:
    """Time both pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=128)
    options = parser.parse_args()
    lm = pophood.load(smollm2_gguf(), threads=options.threads, context=1024)
    tokens, passes = shares(lm)
    length = {"max_tokens": options.steps + 1, "stop_ids": ()}
    endless = Grammar.json_schema(ENDLESS)
    figures = interleaved(
        {
            "free": functools.partial(rate, lm, **length),
            "a JSON string": functools.partial(rate, lm, grammar=endless, **length),
            "the form, one at a time": functools.partial(form_rate, lm, 0),
            "the form, forced": functools.partial(form_rate, lm, matching.MOST_FORCED),
        },
        options.rounds,
    )
    constrained = paired_ratio(figures, "a JSON string", "free")
    forced = paired_ratio(figures, "the form, forced", "the form, one at a time")
    report(
        "text that follows a grammar, SmolLM2",
        "tokens/s",
        figures,
        bars={
            "constrained against free decoding": judged(constrained, 0.97, 1.0),
            "forced tokens in one pass against one at a time": judged(forced, 1.1, tokens / passes),
        },
        form_tokens=tokens,
        form_passes=passes,
        threads=options.threads,
        isa=lm.engine.isa,
    )


if __name__ == "__main__":
    main()
