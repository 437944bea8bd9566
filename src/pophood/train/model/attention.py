"""Causal attention over packed rows, in which a document attends to itself alone. No weights, no model.

Documents are cut out of their rows and batched by similar length. So the work grows with the length of the
documents rather than of the row, and torch's fused kernel needs no mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pophood.train.model.buffer_pool import take, take_like
from pophood.train.model.ops import apply, bits, dropout_seed, num_threads, training, uses_native


class DocumentGroup(NamedTuple):
    """Documents of similar length: `gather` [n, length] indexes [B * T]; `_rounded` pads n and length."""

    gather: Tensor
    source: Tensor  # the entries of the flattened gather that are not padding
    target: Tensor  # the rows in [B * T] that these entries come from


class Scores(NamedTuple):
    """Rules for the scores of queries and keys: their factor, their cap, and the window of positions seen."""

    scale: float | None = None  # None: 1 / sqrt(D)
    cap: float | None = None  # scores become cap * tanh(score / cap)
    window: int | None = None  # a position sees itself and the window - 1 before it; None: all before it


PLAIN = Scores()
Spans = tuple[DocumentGroup, ...]  # the documents of a batch
WHOLE: Spans = ()  # every row is one document


def spans_of(documents: NDArray[np.int32]) -> Spans:
    """Return the documents of a batch from their numbers [B, T]. Padding has number -1 and attends to itself.

    >>> len(spans_of(np.zeros((2, 8), np.int32)))
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
        groups.append(DocumentGroup(*map(torch.from_numpy, (gather, source, gather[real]))))
    return tuple(groups)


def _rounded(n: int) -> int:
    """Round up to 1, 2, 3, 4, 6, 8, 12, 16, ..., so that few shapes occur.

    oneDNN compiles a program of 200 KB for every shape, in a millisecond, and caches a thousand of them.

    >>> [_rounded(n) for n in (1, 3, 5, 7, 9, 100)]
    [1, 3, 6, 8, 12, 128]
    """
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if n <= power * 3 // 4 else power


def attend(
    q: Tensor, k: Tensor, v: Tensor, spans: Spans, dropout: float = 0.0, scores: Scores = PLAIN
) -> Tensor:
    """softmax(q . k * scale) . v within each document: [B, T, H|K, D] -> [B, T, H, D]."""
    if not spans:
        return _causal(q, k, v, dropout, scores)
    b, t = q.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # [B * T, H|K, D]
    z = torch.zeros_like(q)
    for group in spans:
        part = _causal(q[group.gather], k[group.gather], v[group.gather], dropout, scores)
        z = z.index_copy(0, group.target, part.flatten(0, 1)[group.source])
    return z.view(b, t, *z.shape[1:])


def _causal(q: Tensor, k: Tensor, v: Tensor, dropout: float, scores: Scores) -> Tensor:
    window = scores.window if scores.window is not None and scores.window < q.shape[1] else None
    if window is None and scores.cap is None and uses_native(q):
        return apply(AttentionFunction, q, k, v, dropout, scores.scale or q.shape[-1] ** -0.5)
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, H|K, T, D]
    if scores.cap is not None:
        return _capped(q, k, v, dropout, scores).transpose(1, 2)
    mask = None if window is None else _visible(q.shape[2], window, q.device)
    z = F.scaled_dot_product_attention(
        q, k, v, mask, dropout_p=dropout, is_causal=mask is None, enable_gqa=grouped, scale=scores.scale
    )
    return z.transpose(1, 2)


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """Return whether a query [T] sees a key [T]."""
    every = torch.ones(length, length, dtype=torch.bool, device=device).tril_()
    return every if window is None else every.triu_(1 - window)


def _capped(q: Tensor, k: Tensor, v: Tensor, dropout: float, scores: Scores) -> Tensor:
    """Attention with capped scores, which no fused kernel has: [B, H|K, T, D] -> [B, H, T, D]."""
    assert scores.cap is not None
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    score = (q @ k.transpose(2, 3)).float() * (scores.scale or q.shape[-1] ** -0.5)
    score = scores.cap * torch.tanh(score / scores.cap)
    hidden = ~_visible(q.shape[2], scores.window, q.device)
    pattern = torch.softmax(score.masked_fill(hidden, -torch.inf), -1).to(v.dtype)
    return F.dropout(pattern, dropout) @ v


QUERY_CHUNK = 256  # queries at a time: the scores of 12 heads and 1,024 keys are then 6 MB


class AttentionFunction(torch.autograd.Function):
    """Attention as plain matrix products of query chunks, with a native softmax between them.

    On processors that multiply in bfloat16 this is faster than torch's fused kernel, above all in backward
    and with dropout. Queries that share a key head are rows of one product. Backward recomputes the scores.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float, scale: float) -> Tensor:
        b, t, h, d = q.shape
        groups = h // k.shape[2]
        q, k, v = _heads(q * scale, groups), _heads(k), _heads(v)
        z = take_like(q)
        ctx.dropout, ctx.scale, ctx.seeds = dropout, scale, []
        for chunk in _query_chunks(t):
            visible = slice(0, chunk.stop)
            pattern = _bmm(_rows(q[:, :, chunk]), k[:, visible].transpose(1, 2))  # [B * K, G * queries, keys]
            ctx.seeds.append(dropout_seed() if dropout else 0)
            scores = _score_bits(pattern, chunk)
            training.softmax(scores, chunk.start, ctx.seeds[-1], dropout, num_threads())
            z[:, :, chunk] = (pattern @ v[:, visible]).view(-1, groups, chunk.stop - chunk.start, d)
        out = _positions(z, b)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out = ctx.saved_tensors
        b, t, _, d = out.shape
        groups = q.shape[1]
        row_dot = (gradients[0].float() * out).sum(-1).transpose(1, 2).reshape(-1, groups, t)
        d_z = _heads(gradients[0], groups)
        d_q, d_k, d_v = take_like(q), take_like(k).zero_(), take_like(v).zero_()
        for chunk, seed in zip(_query_chunks(t), ctx.seeds, strict=True):
            visible = slice(0, chunk.stop)
            rows, d_rows = _rows(q[:, :, chunk]), _rows(d_z[:, :, chunk])
            pattern = _bmm(rows, k[:, visible].transpose(1, 2))  # [B * K, G * queries, keys]
            d_score = _bmm(d_rows, v[:, visible].transpose(1, 2))
            own, d_own = _score_bits(pattern, chunk), _score_bits(d_score, chunk)
            dots = row_dot[:, :, chunk].contiguous().numpy()
            training.softmax_backward(own, chunk.start, seed, ctx.dropout, d_own, dots, num_threads())
            d_v[:, visible] += pattern.transpose(1, 2) @ d_rows
            d_q[:, :, chunk] = (d_score @ k[:, visible]).view(-1, groups, chunk.stop - chunk.start, d)
            d_k[:, visible] += d_score.transpose(1, 2) @ rows
        d_q *= ctx.scale
        return _positions(d_q, b), _positions(d_k, b), _positions(d_v, b), None, None


def _heads(x: Tensor, groups: int = 0) -> Tensor:
    """[B, T, H, D] -> [B * H, T, D], or [B * H / groups, groups, T, D]."""
    t, d = x.shape[1], x.shape[3]
    by_head = x.transpose(1, 2)  # [B, H, T, D]
    return take_like(by_head).copy_(by_head).view(-1, *((groups,) if groups else ()), t, d)


def _positions(x: Tensor, b: int) -> Tensor:
    """Undo `_heads`: [B * K, (G,) T, D] -> [B, T, H, D]."""
    by_head = x.view(b, -1, *x.shape[-2:]).transpose(1, 2)  # [B, T, H, D]
    return take_like(by_head).copy_(by_head)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """a @ b: [n, R, S] x [n, S, U]."""
    return torch.bmm(a, b, out=take(*a.shape[:2], b.shape[2]))


def _rows(x: Tensor) -> Tensor:
    """[B * K, G, queries, D] -> [B * K, G * queries, D]."""
    return x.reshape(len(x), -1, x.shape[-1])


def _query_chunks(t: int) -> list[slice]:
    return [slice(start, min(start + QUERY_CHUNK, t)) for start in range(0, t, QUERY_CHUNK)]


def _score_bits(scores: Tensor, chunk: slice) -> NDArray[np.int16]:
    """View scores [B * K, G * queries, keys] as bits [B * H, queries, keys]."""
    return bits(scores.view(-1, chunk.stop - chunk.start, scores.shape[-1]))
