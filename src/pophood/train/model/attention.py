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

from pophood.train.model.buffer_pool import empty, empty_like
from pophood.train.model.ops import bits, native, seed, threads, training


@dataclass(frozen=True, slots=True)
class Group:
    """Documents of like length: `gather` [n, length], row numbers in [B * T], filled up by `_rounded`."""

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
        first, long = (x[sizes == size] for x in (starts, lengths))
        spare = (0, _rounded(len(first)) - len(first))
        first, long = np.pad(first, spare), np.pad(long, spare)
        offsets = np.arange(_rounded(int(long.max())))
        real = offsets < long[:, None]
        gather = np.minimum(first[:, None] + offsets, rows * length - 1)
        source = np.flatnonzero(real)
        groups.append(
            Group(torch.from_numpy(gather), torch.from_numpy(source), torch.from_numpy(gather[real]))
        )
    return Spans(tuple(groups))


def _rounded(n: int) -> int:
    """Up to 1, 2, 3, 4, 6, 8, 12, 16, ...: oneDNN keeps a program for every shape that it has multiplied, a
    thousand of 200 KB each, and takes a millisecond to make one.

    >>> [_rounded(n) for n in (1, 3, 5, 7, 9, 100)]
    [1, 3, 6, 8, 12, 128]
    """
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if n <= power * 3 // 4 else power


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
    if native(q):
        z: Tensor = _Attention.apply(q, k, v, dropout)  # type: ignore[no-untyped-call]
        return z
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, H|K, T, D]
    z = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=grouped)
    return z.transpose(1, 2)


QUERIES = 256  # that are taken at a time: 12 heads' scores of 1,024 keys are 6 MB


class _Attention(torch.autograd.Function):
    """Plain products of stretches of queries, with a native softmax between them: where the processor
    multiplies in bfloat16 faster than torch's fused kernel, above all on the way back and with dropout.

    Queries that share a key head are rows of one product. Scores are computed again on the way back.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        b, t, h, d = q.shape
        groups = h // k.shape[2]
        q, k, v = _heads(q * d**-0.5, groups), _heads(k), _heads(v)
        z = empty_like(q)
        ctx.dropout, ctx.seeds = dropout, []
        for here in _stretches(t):
            seen = slice(0, here.stop)
            pattern = _times(_rows(q[:, :, here]), k[:, seen].transpose(1, 2))  # [B * K, G * queries, keys]
            ctx.seeds.append(seed() if dropout else 0)
            training.soften(_square(pattern, here), here.start, ctx.seeds[-1], dropout, threads())
            z[:, :, here] = (pattern @ v[:, seen]).view(-1, groups, here.stop - here.start, d)
        out = _positions(z, b)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out = ctx.saved_tensors
        b, t, _, d = out.shape
        groups = q.shape[1]
        own = (gradients[0].float() * out).sum(-1).transpose(1, 2).reshape(-1, groups, t)
        d_z = _heads(gradients[0], groups)
        d_q, d_k, d_v = empty_like(q), empty_like(k).zero_(), empty_like(v).zero_()
        for here, drawn in zip(_stretches(t), ctx.seeds, strict=True):
            seen = slice(0, here.stop)
            rows, d_rows = _rows(q[:, :, here]), _rows(d_z[:, :, here])
            pattern = _times(rows, k[:, seen].transpose(1, 2))  # [B * K, G * queries, keys]
            d_score = _times(d_rows, v[:, seen].transpose(1, 2))
            training.soften_back(
                _square(pattern, here),
                here.start,
                drawn,
                ctx.dropout,
                _square(d_score, here),
                own[:, :, here].contiguous().numpy(),
                threads(),
            )
            d_v[:, seen] += pattern.transpose(1, 2) @ d_rows
            d_q[:, :, here] = (d_score @ k[:, seen]).view(-1, groups, here.stop - here.start, d)
            d_k[:, seen] += d_score.transpose(1, 2) @ rows
        d_q *= d**-0.5
        return _positions(d_q, b), _positions(d_k, b), _positions(d_v, b), None


def _heads(x: Tensor, groups: int = 0) -> Tensor:
    """[B, T, H, D] -> [B * H, T, D], or [B * H / groups, groups, T, D]."""
    t, d = x.shape[1], x.shape[3]
    across = x.transpose(1, 2)  # [B, H, T, D]
    return empty_like(across).copy_(across).view(-1, *((groups,) if groups else ()), t, d)


def _positions(x: Tensor, b: int) -> Tensor:
    """Back again: [B * K, (G,) T, D] -> [B, T, H, D]."""
    across = x.view(b, -1, *x.shape[-2:]).transpose(1, 2)  # [B, T, H, D]
    return empty_like(across).copy_(across)


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a @ b: [n, R, S] x [n, S, U]."""
    return torch.bmm(a, b, out=empty(*a.shape[:2], b.shape[2]))


def _rows(x: Tensor) -> Tensor:
    """[B * K, G, queries, D] -> [B * K, G * queries, D]."""
    return x.reshape(len(x), -1, x.shape[-1])


def _stretches(t: int) -> list[slice]:
    return [slice(start, min(start + QUERIES, t)) for start in range(0, t, QUERIES)]


def _square(scores: Tensor, here: slice) -> NDArray[np.int16]:
    """The bits of [B * K, G * queries, keys] as [B * H, queries, keys]."""
    return bits(scores.view(-1, here.stop - here.start, scores.shape[-1]))
