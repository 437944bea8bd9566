"""ONNX Runtime GenAI as a side of `peers.py`: weights of 4 or 8 bits in blocks, products in 8 bits."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime_genai
from _peer_protocol import CONTEXT, serve


class OnnxRuntime:
    """A `Model` that its builder wrote."""

    def __init__(self, path: str, threads: int, options: dict[str, Any] | None = None) -> None:
        config = onnxruntime_genai.Config(path)
        session = {"intra_op_num_threads": threads} | (options or {})
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self.model: Any = onnxruntime_genai.Model(config)
        self.facts: dict[str, Any] = {
            "version": version("onnxruntime-genai"),
            "runtime": version("onnxruntime"),
            "options": json.dumps(session),
        }

    def generate(self, ids: list[int], steps: int) -> tuple[list[int], list[float]]:
        """Generate greedily from ids."""
        tokens: list[int] = []
        moments: list[float] = []
        length = len(ids) + steps + 1
        assert length <= CONTEXT
        settings = onnxruntime_genai.GeneratorParams(self.model)
        settings.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = onnxruntime_genai.Generator(self.model, settings)
        generator.append_tokens(np.array([ids], np.int32))
        for _ in range(steps + 1):
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            moments.append(time.perf_counter())
        return tokens, moments


if __name__ == "__main__":
    serve(OnnxRuntime)
