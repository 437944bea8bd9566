"""OpenVINO GenAI as a side of `peers.py`: weights of 8 bits by rows, activations quantised on the way."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai
from _peer_protocol import serve


class _Clock(openvino_genai.StreamerBase):
    """Notes every token with its time."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self.moments: list[float] = []

    def write(self, token: Any) -> Any:
        now = time.perf_counter()
        for one in token if isinstance(token, list) else [token]:
            self.tokens.append(int(one))
            self.moments.append(now)
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


class OpenVino:
    """An `LLMPipeline` on the processor; `options` are properties of the plug-in."""

    def __init__(self, path: str, threads: int, options: dict[str, Any] | None = None) -> None:
        given = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"} | (options or {})
        self.model: Any = openvino_genai.LLMPipeline(path, "CPU", **given)
        self.facts: dict[str, Any] = {
            "version": f"{openvino_genai.__version__}",
            "runtime": openvino.__version__,
            "precision": "weights int8",
            "options": json.dumps(given),
        }

    def generate(self, ids: list[int], steps: int) -> tuple[list[int], list[float]]:
        """Generate greedily from ids."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = steps + 1
        config.ignore_eos = True
        config.do_sample = False
        clock = _Clock()
        row = np.array([ids], np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(row), openvino.Tensor(np.ones_like(row)))
        self.model.generate(inputs, config, clock)
        return clock.tokens, clock.moments


if __name__ == "__main__":
    serve(OpenVino)
