"""Draw where each token looks: python examples/attention_picture.py [MODEL] [FILE.svg].

Needs matplotlib: pip install 'pophood[plot]'.
"""

from __future__ import annotations

import sys

import pophood
from pophood import look

lm = pophood.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2", precision="f32")
file = sys.argv[2] if len(sys.argv) > 2 else "attention.svg"
text = "The capital of Spain is"

view = look.attention(lm, text, layer=1)
print(view.title)
view.save(file)

# The same numbers as an array: heads x queries x keys, one row of weights for each token.
pattern = lm.trace(text, taps=["blocks.1.attn.pattern"])["blocks.1.attn.pattern"]
print(pattern.shape, "each row adds up to", round(float(pattern[0, -1].sum()), 4))
print("wrote", file)
