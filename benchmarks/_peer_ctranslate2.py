"""CTranslate2 as a side of `peers.py`: matrices of 8 bits by rows, everything else in float32."""

from __future__ import annotations

import time
from typing import Any

import ctranslate2
from _peer_protocol import CONTEXT, serve


class CTranslate2:
    """A `Generator` of a converted folder; its callback tells when a token is known."""

    def __init__(self, path: str, threads: int, compute_type: str = "int8") -> None:
        self.model = ctranslate2.Generator(
            path, device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
        )
        self.names = _names(path)
        self.facts: dict[str, Any] = {
            "version": ctranslate2.__version__,
            "precision": f"weights and activations {self.model.compute_type}",
        }

    def generate(self, ids: list[int], steps: int) -> tuple[list[int], list[float]]:
        """Generate greedily; the end of the text is forbidden by the least length."""
        tokens: list[int] = []
        moments: list[float] = []

        def took(result: Any) -> bool:
            moments.append(time.perf_counter())
            tokens.append(result.token_id)
            return False

        assert len(ids) + steps < CONTEXT
        self.model.generate_batch(
            [[self.names[i] for i in ids]],
            max_length=steps + 1,
            min_length=steps + 1,
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
            callback=took,
        )
        return tokens, moments


def _names(path: str) -> list[str]:
    """The tokens of a vocabulary in the order of their ids, which is how prompts are given."""
    import json
    from pathlib import Path

    names = json.loads((Path(path) / "vocabulary.json").read_text(encoding="utf-8"))
    assert isinstance(names, list) and len(set(names)) == len(names)
    return names


if __name__ == "__main__":
    serve(CTranslate2)
