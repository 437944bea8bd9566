"""Print the likeliest next tokens of a text: python examples/next_token_table.py [MODEL] [TEXT]."""

from __future__ import annotations

import sys

import pophood
from pophood import look

lm = pophood.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2", precision="f32")
text = sys.argv[2] if len(sys.argv) > 2 else "The capital of Spain is"

table = lm.next(text, k=5)
print(table)

first = table.rows[0]
print(f"The likeliest is {first[1]!r}, with probability {first[3]:.1%}.")

view = look.next(lm, text, k=5, temperature=0.7, top_p=0.9)  # what sampling settings leave of them
print(view.title)
