"""Continue many prompts at once: python examples/batch_of_prompts.py [MODEL]."""

from __future__ import annotations

import sys

import pophood

PROMPTS = [
    "The capital of Spain is",
    "The capital of Japan is",
    "The capital of Egypt is",
    "Once upon a time",
    "2, 4, 6, 8,",
]

lm = pophood.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
results = lm.batch(PROMPTS, max_tokens=8, temperature=0)
for prompt, result in zip(PROMPTS, results, strict=True):
    print(f"{prompt!r:28} {result.completion!r}")

alone = lm.generate(PROMPTS[0], max_tokens=8, temperature=0)
print("The first is the same alone:", alone.completion == results[0].completion)
