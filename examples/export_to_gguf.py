"""Write a model as a GGUF file: python examples/export_to_gguf.py [MODEL] [FILE.gguf] [ADAPTER]."""

from __future__ import annotations

import sys

import pophood
from pophood.adapters.open import open_adapter
from pophood.export.job import export_model

lm = pophood.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
file = sys.argv[2] if len(sys.argv) > 2 else "exported-q8_0.gguf"
adapters = [(open_adapter(sys.argv[3], lm.config), 1.0)] if len(sys.argv) > 3 else []

receipt = export_model(lm.bundle, file, "q8_0", adapters)  # merges the adapter, writes, reads back, compares
proof = receipt.proof
assert proof is not None
print(f"{receipt.path.name}: {proof.tensors} tensors, divergence {proof.kl:.1g} nats per token")

exported = pophood.load(file)  # llama.cpp, Ollama and others open the same file
print(exported.generate("The capital of Spain is", max_tokens=2, temperature=0).text)
