"""Causal attention over packed rows: documents of one row do not see each other. No weights, no model.

Documents are cut out of the rows, laid side by side in batches of like length, and attended to causally: work
grows with the documents' lengths and not with the row's, and torch's fused kernel does it without a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Documents of like length, `gather` [n, length]: their row numbers in [B * T], short ones filled up."""

    gather: Tensor
    source: Tensor  # which entries of the flattened gather are real
    target: Tensor  # the row numbers of those


@dataclass(frozen=True, slots=True)
class Spans:
    """Where documents begin and end in a batch; `groups` empty: one document per row, from start to end."""

    groups: tuple[Group, ...] = ()

    def to(self, device: str) -> Spans:
        """The same on a device."""
        return Spans(
            tuple(Group(g.gather.to(device), g.source.to(device), g.target.to(device)) for g in self.groups)
        )


WHOLE = Spans()


def spans_of(documents: NDArray[np.int32]) -> Spans:
    """The documents of a batch, from their numbers [B, T] (-1: padding, which attends to itself alone).

    >>> len(spans_of(np.zeros((2, 8), np.int32)).groups)
    0
    """
    rows, length = documents.shape
    if (documents[:, :1] == documents).all():
        return WHOLE
    edges = np.ones((rows, length), bool)
    edges[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = np.flatnonzero(edges)
    lengths = np.diff(np.append(starts, rows * length))
    sizes = 1 << np.ceil(np.log2(np.maximum(lengths, 16))).astype(np.int64)  # 16, 32, 64, ...
    groups = []
    for size in np.unique(sizes):
        chosen = sizes == size
        width = int(lengths[chosen].max())
        offsets = np.arange(width)
        real = offsets < lengths[chosen][:, None]
        gather = np.minimum(starts[chosen][:, None] + offsets, rows * length - 1)
        source = np.flatnonzero(real)
        groups.append(
            Group(torch.from_numpy(gather), torch.from_numpy(source), torch.from_numpy(gather[real]))
        )
    return Spans(tuple(groups))


def attend(q: Tensor, k: Tensor, v: Tensor, spans: Spans, dropout: float = 0.0) -> Tensor:
    """softmax(q . k / sqrt(D), itself and earlier positions of its document) . v: [B, T, H, D]."""
    if not spans.groups:
        return _causal(q, k, v, dropout)
    b, t = q.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # [B * T, H|K, D]
    z = torch.zeros_like(q)
    for group in spans.groups:
        part = _causal(q[group.gather], k[group.gather], v[group.gather], dropout)
        z = z.index_copy(0, group.target, part.flatten(0, 1)[group.source])
    return z.view(b, t, *z.shape[1:])


def _causal(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, H|K, T, D]
    if q.dtype is torch.bfloat16 and not dropout and torch.is_grad_enabled():
        if grouped:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        z: Tensor = _Attention.apply(q, k, v)  # type: ignore[no-untyped-call]
        return z.transpose(1, 2)
    z = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=grouped)
    return z.transpose(1, 2)


QUERIES = 256  # that are taken back at a time


class _Attention(torch.autograd.Function):
    """Torch's fused kernel forward; backward as plain products of stretches of queries: three times as fast
    as the kernel's own where the processor multiplies in bfloat16."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        z, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
        ctx.save_for_backward(q, k, v, z)
        return z  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, z = ctx.saved_tensors
        b, h, t, d = q.shape
        scale = d**-0.5
        own = (gradients[0].float() * z).sum(-1).to(q.dtype).reshape(b * h, t, 1)
        hidden = torch.full((QUERIES, QUERIES), -torch.inf, dtype=q.dtype).triu_(1)  # what is not seen yet
        q, k, v, d_z = (x.reshape(b * h, t, d) for x in (q, k, v, gradients[0]))
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start in range(0, t, QUERIES):
            here = slice(start, min(start + QUERIES, t))
            rows, seen = q[:, here], slice(0, here.stop)
            score = (rows * scale) @ k[:, seen].transpose(1, 2)  # [B * H, queries, keys]
            score[:, :, start:] += hidden[: here.stop - start, : here.stop - start]
            pattern = score.softmax(-1)
            d_score = d_z[:, here] @ v[:, seen].transpose(1, 2)
            d_v[:, seen] += pattern.transpose(1, 2) @ d_z[:, here]
            d_score.sub_(own[:, here]).mul_(pattern)
            d_q[:, here] = d_score @ k[:, seen]
            d_k[:, seen] += d_score.transpose(1, 2) @ rows
        return tuple((x * f).view(b, h, t, d) for x, f in ((d_q, scale), (d_k, scale), (d_v, 1.0)))  # type: ignore[return-value]
