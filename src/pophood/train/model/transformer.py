"""The transformer in torch, for gradients, with the mathematics, order and names of native/engine/engine.cpp.

Sizes as in pophood.config: B rows, T positions, C features, H query heads, K key heads, D features per head,
F inner features, V vocabulary. Parameters have the canonical names of `config.tensor_shapes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pophood.config import ModelConfig
from pophood.train.model.attention import Spans, attend
from pophood.train.model.linear import Linear
from pophood.train.model.ops import apply_rope, dropout_add, gelu, norm, recompute_saved, swiglu

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": gelu}


class DropoutRates(NamedTuple):
    """The three dropout rates of GPT-2, which are 0.1 each in its config.json."""

    embedding: float = 0.0
    attention: float = 0.0  # attention weights
    residual: float = 0.0  # outputs of attention and feed-forward


class NormLayer(nn.Module):
    """Layer norm with gain and shift, or RMS norm with gain, over the last axis."""

    def __init__(self, size: int, eps: float, rms: bool) -> None:
        super().__init__()
        self.eps, self.rms = eps, rms
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = None if rms else nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return norm(x, self.weight, self.bias, self.eps, self.rms)


class SelfAttention(nn.Module):
    """Causal self-attention with RoPE or without: [B, T, C] -> [B, T, C]."""

    def __init__(self, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        c, d = config.n_embd, config.head_dim
        self.head_dim, self.dropout = d, dropout
        self.q: nn.Module = Linear(c, config.n_head * d, bias=config.qkv_bias)
        self.k: nn.Module = Linear(c, config.n_kv_head * d, bias=config.qkv_bias)
        self.v: nn.Module = Linear(c, config.n_kv_head * d, bias=config.qkv_bias)
        self.out: nn.Module = Linear(config.n_head * d, c, bias=config.attn_out_bias)
        self.q_norm = NormLayer(d, config.norm_eps, rms=True) if config.qk_norm else None
        self.k_norm = NormLayer(d, config.norm_eps, rms=True) if config.qk_norm else None

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, spans: Spans) -> Tensor:
        # [B, T, H|K, D]
        q, k, v = (m(x).unflatten(-1, (-1, self.head_dim)) for m in (self.q, self.k, self.v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = apply_rope(q, *angles), apply_rope(k, *angles)
        z = attend(q, k, v, spans, self.dropout if self.training else 0.0)  # [B, T, H, D]
        return self.out(z.flatten(-2))  # type: ignore[no-any-return]


class MLP(nn.Module):
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
        inner = self._inner(gate, up)
        with recompute_saved(inner, lambda: self._inner(gate, up)):
            return self.down(inner)  # type: ignore[no-any-return]

    def _inner(self, gate: Tensor | None, up: Tensor) -> Tensor:
        if gate is not None:
            return swiglu(gate, up) if self.activation == "silu" else ACTIVATIONS[self.activation](gate) * up
        return ACTIVATIONS[self.activation](up)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: ModelConfig, dropout: DropoutRates) -> None:
        super().__init__()
        rms = config.norm == "rms"
        self.ln_1 = NormLayer(config.n_embd, config.norm_eps, rms)
        self.attn = SelfAttention(config, dropout.attention)
        self.ln_2 = NormLayer(config.n_embd, config.norm_eps, rms)
        self.mlp = MLP(config)
        self.dropout = dropout.residual

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, spans: Spans) -> Tensor:
        rate = self.dropout if self.training else 0.0
        normed = self.ln_1(x)
        with recompute_saved(normed, lambda: self.ln_1(x)):
            middle = dropout_add(x, self.attn(normed, angles, spans), rate)
        normed = self.ln_2(middle)
        with recompute_saved(normed, lambda: self.ln_2(middle)):
            return dropout_add(middle, self.mlp(normed), rate)


class Embed(nn.Module):
    """The token embedding, plus the position embedding if positions are learned."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))
        learned = config.rope is None
        self.position = nn.Parameter(torch.empty(config.n_positions, config.n_embd)) if learned else None

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = F.embedding(tokens, self.token)
        return x if self.position is None else x + F.embedding(positions, self.position)


class OutputMatrix(nn.Module):
    """The output matrix of a model that does not tie it to the token embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))


class Model(nn.Module):
    """A decoder-only transformer: GPT-2, Llama or Qwen, as `config` says.

    Calling it returns hidden states [B, T, C] after the final norm; `loss.py` continues from there without
    holding all logits. `recompute` trades time for memory (gradient checkpointing).
    """

    def __init__(self, config: ModelConfig, dropout: DropoutRates = DropoutRates()) -> None:  # noqa: B008 - immutable
        super().__init__()
        self.config, self.recompute = config, False
        # Of bfloat16 weights with float32 masters (precision.py).
        self.master_remainder: dict[str, Tensor] = {}
        self.embed = Embed(config)
        self.dropout = dropout.embedding
        self.blocks = nn.ModuleList(TransformerBlock(config, dropout) for _ in range(config.n_layer))
        self.final_norm = NormLayer(config.n_embd, config.norm_eps, config.norm == "rms")
        self.output = None if config.tied_output else OutputMatrix(config)
        if config.rope is not None:
            self.frequencies = torch.from_numpy(config.rope.frequencies(config.head_dim))

    def forward(self, tokens: Tensor, positions: Tensor, spans: Spans) -> Tensor:
        """Token ids and positions [B, T] -> hidden states [B, T, C] after the final norm."""
        x = dropout_add(None, self.embed(tokens, positions), self.dropout if self.training else 0.0)
        return self.from_block(x, positions, spans)

    def from_block(
        self, x: Tensor, positions: Tensor, spans: Spans, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Compute blocks first..last-1 on the stream [B, T, C]; without `last`, include the final norm."""
        angles = self._angles(positions)
        for block in self.blocks[first:last]:
            if self.recompute and self.training:
                x = checkpoint(block, x, angles, spans, use_reentrant=False)
            else:
                x = block(x, angles, spans)
        return self.final_norm(x) if last is None else x

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, C] that maps hidden states to logits."""
        return self.embed.token if self.output is None else self.output.weight

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return cosines and sines [B, T, 1, D/2] of the RoPE angles; None if positions are learned."""
        if self.config.rope is None:
            return None
        angle = positions[..., None].float() * self.frequencies.to(positions.device)
        return angle.cos()[..., None, :], angle.sin()[..., None, :]
