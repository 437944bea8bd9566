"""The model in torch, for gradients: mathematics, order and names of native/engine.cpp. No data, no loop.

Sizes as in pophood.config: B rows, T positions, C features, H query heads, K key heads, D features of a head,
F inner features, V vocabulary. Parameters carry the canonical names of `config.tensor_shapes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pophood.config import ModelConfig, tensor_shapes
from pophood.train.model.attention import Spans, attend
from pophood.train.model.linear import Linear
from pophood.train.model.ops import add_dropped, gelu, norm, recomputed, swiglu, turn


class Dropout(NamedTuple):
    """GPT-2's three places (0.1 each in its config.json): embeddings, attention weights, sublayer outputs."""

    embedding: float = 0.0
    attention: float = 0.0
    residual: float = 0.0


class Norm(nn.Module):
    """Layer norm with gain and shift, or RMS norm with gain, over the last axis."""

    def __init__(self, size: int, eps: float, rms: bool) -> None:
        super().__init__()
        self.eps, self.rms = eps, rms
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = None if rms else nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return norm(x, self.weight, self.bias, self.eps, self.rms)


class Attention(nn.Module):
    """Queries, keys, values, the softmax between them, and the way back: [B, T, C] -> [B, T, C]."""

    def __init__(self, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        c, d = config.n_embd, config.head_dim
        self.head_dim, self.dropout = d, dropout
        self.q: nn.Module = Linear(c, config.n_head * d, bias=config.qkv_bias)
        self.k: nn.Module = Linear(c, config.n_kv_head * d, bias=config.qkv_bias)
        self.v: nn.Module = Linear(c, config.n_kv_head * d, bias=config.qkv_bias)
        self.out: nn.Module = Linear(config.n_head * d, c, bias=config.attn_out_bias)
        self.q_norm = Norm(d, config.norm_eps, rms=True) if config.qk_norm else None
        self.k_norm = Norm(d, config.norm_eps, rms=True) if config.qk_norm else None

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, spans: Spans) -> Tensor:
        q, k, v = (
            m(x).unflatten(-1, (-1, self.head_dim)) for m in (self.q, self.k, self.v)
        )  # [B, T, H|K, D]
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = turn(q, *angles), turn(k, *angles)
        z = attend(q, k, v, spans, self.dropout if self.training else 0.0)  # [B, T, H, D]
        return self.out(z.flatten(-2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)): [B, T, C] -> [B, T, C]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, f, bias = config.n_embd, config.n_inner, config.mlp_bias
        self.activation = config.activation
        self.gate: nn.Module | None = Linear(c, f, bias=bias) if config.gated_mlp else None
        self.up: nn.Module = Linear(c, f, bias=bias)
        self.down: nn.Module = Linear(f, c, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = None if self.gate is None else self.gate(x), self.up(x)
        inside = self._activated(gate, up)
        with recomputed(inside, lambda: self._activated(gate, up)):
            return self.down(inside)  # type: ignore[no-any-return]

    def _activated(self, gate: Tensor | None, up: Tensor) -> Tensor:
        if gate is not None:
            return swiglu(gate, up) if self.activation == "silu" else self._curved(gate) * up
        return self._curved(up)

    def _curved(self, x: Tensor) -> Tensor:
        if self.activation == "silu":
            return F.silu(x)
        return gelu(x) if self.activation == "gelu_tanh" else F.gelu(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: ModelConfig, dropout: Dropout) -> None:
        super().__init__()
        rms = config.norm == "rms"
        self.ln_1 = Norm(config.n_embd, config.norm_eps, rms)
        self.attn = Attention(config, dropout.attention)
        self.ln_2 = Norm(config.n_embd, config.norm_eps, rms)
        self.mlp = FeedForward(config)
        self.dropout = dropout.residual

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, spans: Spans) -> Tensor:
        rate = self.dropout if self.training else 0.0
        normed = self.ln_1(x)
        with recomputed(normed, lambda: self.ln_1(x)):
            middle = add_dropped(x, self.attn(normed, angles, spans), rate)
        normed = self.ln_2(middle)
        with recomputed(normed, lambda: self.ln_2(middle)):
            return add_dropped(middle, self.mlp(normed), rate)


class Embed(nn.Module):
    """Token rows, plus position rows where the model learns them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))
        learned = config.rope is None
        self.position = nn.Parameter(torch.empty(config.n_positions, config.n_embd)) if learned else None

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = F.embedding(tokens, self.token)
        return x if self.position is None else x + F.embedding(positions, self.position)


class Output(nn.Module):
    """The output matrix of a model that does not share it with the token embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))


class Model(nn.Module):
    """A transformer whose parameters are named as everywhere in pophood.

    Calling it gives [B, T, C] after the final norm; the loss takes it from there (`loss.py`) without ever
    building the logits. `recompute` trades time for memory (gradient checkpointing).
    """

    def __init__(self, config: ModelConfig, dropout: Dropout = Dropout()) -> None:  # noqa: B008 - immutable
        super().__init__()
        self.config, self.recompute = config, False
        self.low: dict[str, Tensor] = {}  # lower halves of masters, if it is in bfloat16 (precision.py)
        self.embed = Embed(config)
        self.dropout = dropout.embedding
        self.blocks = nn.ModuleList(Block(config, dropout) for _ in range(config.n_layer))
        self.final_norm = Norm(config.n_embd, config.norm_eps, config.norm == "rms")
        self.output = None if config.tied_output else Output(config)
        if config.rope is not None:
            self.frequencies = torch.from_numpy(config.rope.frequencies(config.head_dim))

    def forward(self, tokens: Tensor, positions: Tensor, spans: Spans) -> Tensor:
        """Token ids and positions [B, T] -> hidden states [B, T, C] after the final norm."""
        x = add_dropped(None, self.embed(tokens, positions), self.dropout if self.training else 0.0)
        return self.from_block(x, positions, spans)

    def from_block(
        self, x: Tensor, positions: Tensor, spans: Spans, first: int = 0, last: int | None = None
    ) -> Tensor:
        """The stream [B, T, C] before block `first` -> after the final norm, or before block `last`."""
        angles = self._angles(positions)
        for block in self.blocks[first:last]:
            if self.recompute and self.training:
                x = checkpoint(block, x, angles, spans, use_reentrant=False)
            else:
                x = block(x, angles, spans)
        return self.final_norm(x) if last is None else x

    @property
    def output_weight(self) -> Tensor:
        """[V, C]: the matrix that turns hidden states into logits."""
        return self.embed.token if self.output is None else self.output.weight

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines [B, T, 1, D/2] of position * frequency; None with learned positions."""
        if self.config.rope is None:
            return None
        angle = positions[..., None].float() * self.frequencies.to(positions.device)
        return angle.cos()[..., None, :], angle.sin()[..., None, :]

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Copy every tensor in by its canonical name."""
        with torch.no_grad():
            for name in tensor_shapes(self.config):
                self.get_parameter(name).numpy()[...] = weights[name]
