"""The logit lens at the end of fixed prompts while a model learns: what each block would have said, by step.

The engine reads it in the pass that predicts the next token (`generate/inspection.py`).
Source: nostalgebraist, "interpreting GPT: the logit lens", 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pophood.errors import EngineError
from pophood.generate.inside import Inspect
from pophood.model.lm import LM
from pophood.table import Table
from pophood.train.events import Looked
from pophood.train.report.measures import SamplePrompt, fitting

KEPT = 3  # likeliest tokens after each block
DIGITS = 5  # of a probability
UNIT = "probability of the guess after that block"


def looks(lm: LM, prompts: Sequence[SamplePrompt], step: int) -> Iterator[Looked]:
    """Yield the lens of the engine's model at the end of every prompt; none where it computes no numbers."""
    kept = min(KEPT, lm.config.vocab_size)
    for prompt in prompts:
        ids = fitting(prompt.ids, lm.engine.context)
        try:
            (token,) = lm.stream(ids, max_tokens=1, stop_ids=(), temperature=0, inspect=Inspect(lens=kept))
        except EngineError:
            continue
        assert token.inside is not None and token.inside.lens is not None
        spell = lm.bundle.tokenizer.token_text
        blocks = [
            tuple(
                (spell(int(id_)), round(math.exp(share), DIGITS))
                for id_, share in zip(best.ids, best.log_probabilities, strict=True)
            )
            for _, best in token.inside.lens
        ]
        yield Looked(step, prompt.text, tuple(blocks))


def lens_figures(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a figure for each prompt of a run's `looked` events: a grid of blocks and steps."""
    prompts: dict[str, dict[int, Any]] = {}
    for event in events:
        if event["event"] == "looked":
            prompts.setdefault(event["prompt"], {})[event["step"]] = event["blocks"]
    return [
        {
            "kind": "lens",
            "title": f"The guess of every block after “{prompt}”, by step",
            "axis": "step",
            "prompt": prompt,
            "tokens": [str(step) for step in sorted(by_step)],
            "layers": [f"block {i}" for i in range(len(next(iter(by_step.values()))))],
            "cells": [
                [{"text": text, "probability": share} for text, share in (row[0] for row in column)]
                for column in zip(*(by_step[step] for step in sorted(by_step)), strict=True)
            ],
            "unit": UNIT,
        }
        for prompt, by_step in prompts.items()
    ]


def lens_table(figure: Mapping[str, Any]) -> Table:
    """Return a figure of `lens_figures` as a table, the last block first: a guess and its probability."""
    rows = [
        (name, *(f"{cell['text']!r} {cell['probability']:.0%}" for cell in cells))
        for name, cells in zip(figure["layers"], figure["cells"], strict=True)
    ]
    return Table(("block", *(f"step {step}" for step in figure["tokens"])), tuple(reversed(rows)))
