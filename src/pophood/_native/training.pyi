"""
Everything that training computes between two matrix products; a bfloat16 array is passed as int16.
"""

from typing import Annotated

import numpy
from numpy.typing import NDArray

def use_openmp_threads(region: int) -> None: ...
def adamw(
    weight: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    remainder: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    gradient: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    moment1: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    moment2: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    *,
    gradient_scale: float,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    bias_correction1: float,
    bias_correction2: float,
    seed: int,
    threads: int,
) -> None: ...
def sum_of_squares(
    x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)], threads: int
) -> float: ...
def gelu(
    x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    y: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    threads: int,
) -> None: ...
def gelu_backward(
    x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    d_y: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    d_x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    threads: int,
) -> None: ...
def swiglu(
    gate: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    up: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    y: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    threads: int,
) -> None: ...
def swiglu_backward(
    gate: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    up: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    d_y: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    d_gate: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    d_up: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    threads: int,
) -> None: ...
def norm(
    x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    gain: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    bias: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)] | None,
    epsilon: float,
    rms: bool,
    y: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    threads: int,
) -> None: ...
def norm_backward(
    x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    gain: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    epsilon: float,
    rms: bool,
    d_y: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    d_x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    d_gain: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu")] | None,
    d_bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu")] | None,
    threads: int,
) -> None: ...
def softmax(
    scores: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    first: int,
    seed: int,
    rate: float,
    threads: int,
) -> None: ...
def softmax_backward(
    scores: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    first: int,
    seed: int,
    rate: float,
    d_pattern: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    row_dot: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
    threads: int,
) -> None: ...
def dropout_add(
    x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)] | None,
    y: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    out: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    seed: int,
    rate: float,
    threads: int,
) -> None: ...
def rope(
    x: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu", writable=False)],
    cosines: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
    sines: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
    inverse: bool,
    out: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    threads: int,
) -> None: ...
def cross_entropy(
    logits: Annotated[NDArray[numpy.int16], dict(order="C", device="cpu")],
    targets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    scale: float,
    loss: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu")],
    columns: bool,
    threads: int,
) -> None: ...
