"""Runs on the mock model, for the tests of the loop."""

from __future__ import annotations

from typing import Any

from pophood.generate import GenerateSettings, PrefixCache, Run, Token, generate
from pophood.sampling import SamplingSettings
from tests.generate.mock import MockDecoder, MockTokenizer

LETTERS = [b"a", b"b", b"c", b"ab", b"bc", b"\n", " é".encode(), b"END", b"E", b"N", b"D", b"x", b"y", b"z"]
END = 14  # <end>, a special token that stops
TOKENIZER: Any = MockTokenizer([*LETTERS, b"", b"\xc3"], specials={END: "<end>"}, stops={END: "eos_token"})
PROMPT = [0, 1, 2, 3]
WILD = SamplingSettings(top_k=0, temperature=1.5)


def run(
    engine: MockDecoder, prompt: list[int] | None = None, prefix: PrefixCache | None = None, **values: Any
) -> Run:
    values = {"sampling": WILD, "seed": 7, "max_tokens": 20, **values}
    return generate(
        engine, TOKENIZER, PROMPT if prompt is None else prompt, GenerateSettings(**values), prefix
    )


def scripted(script: list[int], **values: Any) -> list[Token]:
    """Return the tokens of a run whose model follows the script."""
    engine = MockDecoder()
    engine.script, engine.prompt_length = script, len(PROMPT)
    tokens = list(
        run(engine, **{"sampling": SamplingSettings(temperature=0), "max_tokens": len(script), **values})
    )
    assert engine.sequences == {}
    return tokens


def text_of(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


def by_sample(tokens: list[Token]) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for t in tokens:
        found.setdefault(t.sample, []).append(
            (t.id, t.text, t.position, t.logit, t.final_probability, t.finish)
        )
    return found
