"""The C++ module's surface, for the type checker. Its one caller is pophood.model.engine."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

class Stopped(RuntimeError): ...
class NotFinite(RuntimeError): ...

class CancelFlag:
    def __init__(self) -> None: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    @property
    def is_set(self) -> bool: ...

class Config:
    def __init__(
        self,
        *,
        n_layer: int,
        n_head: int,
        n_kv_head: int,
        n_embd: int,
        head_dim: int,
        n_inner: int,
        vocab_size: int,
        n_positions: int,
        rms_norm: bool,
        norm_eps: float,
        activation: int,
        gated_mlp: bool,
        qkv_bias: bool,
        attn_out_bias: bool,
        mlp_bias: bool,
        qk_norm: bool,
        tied_output: bool,
        frequencies: list[float],
    ) -> None: ...

class Engine:
    def __init__(self, config: Config, threads: int, isa: str) -> None: ...
    def set_tensor(self, name: str, array: NDArray[Any], type: str) -> None: ...
    def missing_tensors(self) -> list[str]: ...
    def add_adapter(self, matrix: str, a: NDArray[np.float32], b: NDArray[np.float32]) -> None: ...
    def clear_adapters(self) -> None: ...
    def forward(
        self,
        tokens: NDArray[np.int32],
        sequences: NDArray[np.int64],
        output: int,
        rows: NDArray[np.int64],
        out: NDArray[np.float32] | None,
        readings: list[tuple[int, int, NDArray[np.float32]]],
        cancel: CancelFlag | None,
    ) -> None: ...
    def create(self) -> int: ...
    def fork(self, sequence: int) -> int: ...
    def truncate(self, sequence: int, length: int) -> None: ...
    def drop(self, sequence: int) -> None: ...
    def length(self, sequence: int) -> int: ...
    def cache_bytes(self) -> int: ...
    @property
    def facts(self) -> dict[str, Any]: ...

def available_isa() -> str: ...
def allow_spinning(allowed: bool) -> None: ...
def read_bandwidth(threads: int, bytes: int, rounds: int) -> float: ...

_Halves = NDArray[np.int16]

class training:  # noqa: N801 - a submodule's name
    """A submodule: bfloat16 as int16 arrays, contiguous."""

    @staticmethod
    def borrow_threads(region: int) -> None: ...
    @staticmethod
    def adamw(
        high: _Halves,
        low: _Halves,
        gradient: _Halves,
        mean: _Halves,
        square: _Halves,
        *,
        factor: float,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        decay: float,
        correction1: float,
        correction2: float,
        seed: int,
        threads: int,
    ) -> None: ...
    @staticmethod
    def sum_of_squares(x: _Halves, threads: int, /) -> float: ...
    @staticmethod
    def gelu(x: _Halves, y: _Halves, threads: int, /) -> None: ...
    @staticmethod
    def gelu_back(x: _Halves, d_y: _Halves, d_x: _Halves, threads: int, /) -> None: ...
    @staticmethod
    def swiglu(gate: _Halves, up: _Halves, y: _Halves, threads: int, /) -> None: ...
    @staticmethod
    def swiglu_back(
        gate: _Halves, up: _Halves, d_y: _Halves, d_gate: _Halves, d_up: _Halves, threads: int, /
    ) -> None: ...
    @staticmethod
    def norm(
        x: _Halves,
        gain: _Halves,
        bias: _Halves | None,
        epsilon: float,
        rms: bool,
        y: _Halves,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def norm_back(
        x: _Halves,
        gain: _Halves,
        epsilon: float,
        rms: bool,
        d_y: _Halves,
        d_x: _Halves,
        d_gain: NDArray[np.float32] | None,
        d_bias: NDArray[np.float32] | None,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def soften(score: _Halves, first: int, seed: int, rate: float, threads: int, /) -> None: ...
    @staticmethod
    def soften_back(
        score: _Halves,
        first: int,
        seed: int,
        rate: float,
        d_pattern: _Halves,
        own: NDArray[np.float32],
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def add_dropped(
        x: _Halves | None, y: _Halves, out: _Halves, seed: int, rate: float, threads: int, /
    ) -> None: ...
    @staticmethod
    def turn(
        x: _Halves,
        cosines: NDArray[np.float32],
        sines: NDArray[np.float32],
        back: bool,
        out: _Halves,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def cross_entropy(
        logits: _Halves,
        targets: NDArray[np.int64],
        scale: float,
        loss: NDArray[np.float32],
        columns: bool,
        threads: int,
        /,
    ) -> None: ...
