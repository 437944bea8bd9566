"""Teach a model a text and use what it learned: python examples/tune_an_adapter.py FILE [MODEL] [STEPS].

Needs torch: pip install 'pophood[train]' (docs/tune.md has the line for a CPU build). The adapter is written
to ./tuned-lora.
"""

from __future__ import annotations

import sys

import pophood
from pophood.train.events import Evaluated, Step

text = sys.argv[1]
lm = pophood.load(sys.argv[2] if len(sys.argv) > 2 else "smollm2")
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 20
prompt = "ROMEO:"
before = lm.generate(prompt, max_tokens=20, seed=1).completion

tuning = pophood.tune(lm, text, "tuned-lora", steps=steps, length=64, overwrite=True)
for event in tuning:
    if isinstance(event, Step):
        print(f"step {event.step} of {event.steps}: loss {event.loss:.3f}")
    elif isinstance(event, Evaluated):
        print(f"validation loss {event.loss:.3f}")

lm.use_adapters([tuning.out])  # at once; no weight of the model changes
print("before:", repr(before))
print("after: ", repr(lm.generate(prompt, max_tokens=20, seed=1).completion))
lm.use_adapters([])  # and back
print("the same as before:", lm.generate(prompt, max_tokens=20, seed=1).completion == before)
