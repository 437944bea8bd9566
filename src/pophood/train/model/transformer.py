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

from pophood.config import BlockAttention, ModelConfig, Rope
from pophood.train.model.attention import Scores, Spans, attend
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

    def __init__(self, config: ModelConfig, block: BlockAttention, dropout: float) -> None:
        super().__init__()
        c, d = config.n_embd, config.head_dim
        self.head_dim, self.dropout = d, dropout
        self.scores = Scores(config.attention_scale, config.score_cap, block.window)
        self.norm_whole = config.qk_norm == "all"
        self.q: nn.Module = Linear(c, config.n_head * d, bias=config.qkv_bias)
        self.k: nn.Module = Linear(c, config.n_kv_head * d, bias=config.qkv_bias)
        self.v: nn.Module = Linear(c, config.n_kv_head * d, bias=config.qkv_bias)
        self.out: nn.Module = Linear(config.n_head * d, c, bias=config.attn_out_bias)
        heads = (config.n_head, config.n_kv_head) if self.norm_whole else (1, 1)
        norms = [NormLayer(n * d, config.norm_eps, rms=True) if config.qk_norm else None for n in heads]
        self.q_norm, self.k_norm = norms

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, spans: Spans) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)  # [B, T, H|K * D]
        if self.norm_whole and self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in (q, k, v))  # [B, T, H|K, D]
        if not self.norm_whole and self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = apply_rope(q, *angles), apply_rope(k, *angles)
        z = attend(q, k, v, spans, self.dropout if self.training else 0.0, self.scores)  # [B, T, H, D]
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
    """x + attention(norm(x)), then x + feed-forward(norm(x)); norms before, after or both, or in parallel."""

    def __init__(self, config: ModelConfig, dropout: DropoutRates, number: int) -> None:
        super().__init__()

        def norm_layer(there: bool) -> NormLayer | None:
            return NormLayer(config.n_embd, config.norm_eps, config.norm == "rms") if there else None

        before, after = config.norm_places != "after", config.norm_places != "before"
        self.ln_1, self.ln_1_post = norm_layer(before), norm_layer(after)
        self.attn = SelfAttention(config, config.block_attention[number], dropout.attention)
        self.ln_2, self.ln_2_post = norm_layer(before), norm_layer(after)
        self.mlp = MLP(config)
        self.dropout, self.scale, self.parallel = dropout.residual, config.residual_scale, config.parallel

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, spans: Spans) -> Tensor:
        rate = self.dropout if self.training else 0.0
        normed = _normed(self.ln_1, x)
        with recompute_saved(normed, lambda: _normed(self.ln_1, x)):
            middle = dropout_add(x, self._settled(self.ln_1_post, self.attn(normed, angles, spans)), rate)
        stream = x if self.parallel else middle
        normed = _normed(self.ln_2, stream)
        with recompute_saved(normed, lambda: _normed(self.ln_2, stream)):
            return dropout_add(middle, self._settled(self.ln_2_post, self.mlp(normed)), rate)

    def _settled(self, post: NormLayer | None, y: Tensor) -> Tensor:
        y = _normed(post, y)
        return y if self.scale == 1.0 else y * self.scale


def _normed(layer: NormLayer | None, x: Tensor) -> Tensor:
    return x if layer is None else layer(x)


class Embed(nn.Module):
    """The token embedding, plus the position embedding if positions are learned."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))
        self.scale, learned = config.embedding_scale, config.rope is None
        self.position = nn.Parameter(torch.empty(config.n_positions, config.n_embd)) if learned else None

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = F.embedding(tokens, self.token)
        x = x if self.scale == 1.0 else x * self.scale
        return x if self.position is None else x + F.embedding(positions, self.position)


class OutputMatrix(nn.Module):
    """The output matrix of a model that does not tie it to the token embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))


class Model(nn.Module):
    """A decoder-only transformer of any family, as `config` says.

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
        self.blocks = nn.ModuleList(TransformerBlock(config, dropout, i) for i in range(config.n_layer))
        self.final_norm = NormLayer(config.n_embd, config.norm_eps, config.norm == "rms")
        self.output = None if config.tied_output else OutputMatrix(config)
        self.ropes = [block.rope for block in config.block_attention]

    def forward(self, tokens: Tensor, positions: Tensor, spans: Spans) -> Tensor:
        """Token ids and positions [B, T] -> hidden states [B, T, C] after the final norm."""
        x = dropout_add(None, self.embed(tokens, positions), self.dropout if self.training else 0.0)
        return self.from_block(x, positions, spans)

    def from_block(
        self, x: Tensor, positions: Tensor, spans: Spans, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Compute blocks first..last-1 on the stream [B, T, C]; without `last`, include the final norm."""
        angles = self._angles(positions)
        for block, rope in zip(self.blocks[first:last], self.ropes[first:last], strict=True):
            if self.recompute and self.training:
                x = checkpoint(block, x, angles[rope], spans, use_reentrant=False)
            else:
                x = block(x, angles[rope], spans)
        return self.finish(x) if last is None else x

    def finish(self, x: Tensor) -> Tensor:
        """Apply the final norm, and the divisor of the logits."""
        x = self.final_norm(x)
        return x if self.config.logit_divisor == 1.0 else x / self.config.logit_divisor

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, C] that maps hidden states to logits."""
        return self.embed.token if self.output is None else self.output.weight

    def _angles(self, positions: Tensor) -> dict[Rope | None, tuple[Tensor, Tensor] | None]:
        """Return cosines and sines [B, T, 1, R/2] of the angles of every RoPE, and None without one."""
        angles: dict[Rope | None, tuple[Tensor, Tensor] | None] = {None: None}
        for rope in self.ropes:
            if rope is None or rope in angles:
                continue
            table = rope.frequencies(self.config.head_dim, self.config.n_positions)
            angle = positions[..., None].float() * torch.from_numpy(table).to(positions.device)
            cosines, sines = angle.cos()[..., None, :], angle.sin()[..., None, :]
            if rope.magnitude != 1.0:
                cosines, sines = cosines * rope.magnitude, sines * rope.magnitude
            angles[rope] = cosines, sines
        return angles
