"""
The C++ engine, called by pophood.model.engine, and the training kernels, called by pophood.train.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy
import numpy.typing
from numpy.typing import NDArray

from pophood._native import training as training

class Stopped(RuntimeError):
    pass

class Forgotten(RuntimeError):
    pass

class NotFinite(RuntimeError):
    pass

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
    ) -> None: ...
    def set_attention(
        self,
        *,
        frequencies: Sequence[Sequence[float]],
        rotary_scales: Sequence[float],
        rotary_of: Sequence[int],
        windows: Sequence[int],
        scale: float,
        cap: float,
        qk_norm_whole: bool,
    ) -> None: ...
    def set_stream(
        self,
        *,
        norm_places: int,
        parallel: bool,
        embedding_scale: float,
        residual_scale: float,
        logit_scale: float,
        logit_cap: float,
    ) -> None: ...

class Engine:
    def __init__(self, config: Config, threads: int, isa: str) -> None: ...
    def set_tensor(self, name: str, array: numpy.typing.NDArray[Any], type: str, held: str = "") -> None: ...
    def missing_tensors(self) -> list[str]: ...
    def set_threads(self, threads: int) -> None: ...
    def set_kv_type(self, type: str) -> None: ...
    def create_adapter(self) -> int: ...
    def set_adapter_pair(
        self,
        adapter: int,
        matrix: str,
        a: Annotated[
            NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
        ],
        b: Annotated[
            NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
        ],
    ) -> None: ...
    def drop_adapter(self, adapter: int) -> None: ...
    def create(self, adapters: Sequence[int]) -> int: ...
    def export_kv(
        self,
        sequence: int,
        first: int,
        last: int,
        windows_from: int,
        out: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu")],
    ) -> None: ...
    def append_kv(
        self,
        sequence: int,
        tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        windows_from: int,
        data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)],
    ) -> None: ...
    def position_bytes(self, windowed: bool) -> int: ...
    def windows_from(self, sequence: int, first: int, last: int) -> int: ...
    def resumable(self, sequence: int, length: int) -> int: ...
    def forget_windows(self, sequence: int) -> None: ...
    def tokens(self, sequence: int, first: int, last: int) -> list[int]: ...
    def fork(self, sequence: int) -> int: ...
    def truncate(self, sequence: int, length: int) -> None: ...
    def drop(self, sequence: int) -> None: ...
    def length(self, sequence: int) -> int: ...
    def cache_bytes(self) -> int: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    def forward(
        self,
        tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        sequences: Annotated[
            NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        output: int,
        rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
        out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")] | None,
        readings: Sequence[
            tuple[
                int,
                int,
                Annotated[NDArray[numpy.float32], dict(order="C", device="cpu")],
                Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
                int,
            ]
        ],
        cancel: CancelFlag | None,
        summary: Summary | None = None,
        edits: Sequence[
            tuple[
                int,
                int,
                int,
                int,
                Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
                Annotated[
                    NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
                ],
                int,
            ]
        ] = [],
        flags: Mapping[int, CancelFlag] = {},
    ) -> list[int]: ...
    def unembed(
        self,
        hidden: Annotated[
            NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
        ],
        logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")] | None,
        summary: Summary,
        entropy: bool,
    ) -> None: ...

class CancelFlag:
    """
    Stops a forward pass within one block. Any thread may set it; clear() resets it.
    """

    def __init__(self) -> None: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    @property
    def is_set(self) -> bool: ...

class Summary:
    """
    Arrays that a forward pass fills with the distribution of every output row.
    """

    def __init__(
        self,
        ids: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu")],
        logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")],
        logsumexp: Annotated[NDArray[numpy.float64], dict(shape=(None,), order="C", device="cpu")],
        entropy: Annotated[NDArray[numpy.float64], dict(shape=(None,), order="C", device="cpu")],
        allowed: Annotated[
            NDArray[numpy.uint32], dict(shape=(None, None), order="C", device="cpu", writable=False)
        ]
        | None = None,
        targets: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)]
        | None = None,
        target_logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")]
        | None = None,
        target_ranks: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu")]
        | None = None,
    ) -> None: ...

def available_isa() -> str: ...
def allow_spinning(allowed: bool) -> None: ...
def read_bandwidth(threads: int, bytes: int, rounds: int) -> float: ...
def multiply_rate(threads: int, rounds: int, isa: str = "") -> float: ...
