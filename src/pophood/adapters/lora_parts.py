"""Adapters of matrices that a file joins, such as GPT-2's q, k and v in c_attn (attn_qkv in GGUF).

Three pairs (A_q, B_q), (A_k, B_k), (A_v, B_v) of rank r join to exactly one pair of rank 3r:

    A = [A_q]        B = [B_q  0    0 ]        B A x = [B_q A_q x]
        [A_k]            [0    B_k  0 ]                [B_k A_k x]
        [A_v]            [0    0    B_v]               [B_v A_v x]

If they share one A (as pairs from such a file do), the rank stays r and the rows of B are stacked. A part
without an adapter gets rows of zeros. When a pair is split, each part keeps only the columns of B that are
not zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pophood.adapters.adapter import Adapter, Pair
from pophood.config import ModelConfig, tensor_shapes
from pophood.families import family_of
from pophood.families.family import FileFormat, rows_of


def joined_targets(adapter: Adapter, config: ModelConfig, file_format: FileFormat) -> dict[str, Pair]:
    """Join an adapter's pairs: the file's matrix ("h.0.attn.c_attn" or "blk.0.attn_qkv") -> (A, B).

    Names have neither a prefix nor ".weight". Rows are not permuted. The adapter must fit the model
    (`Adapter.check`).
    """
    groups: dict[str, dict[int, Pair]] = {}
    by_head: set[str] = set()
    sizes: dict[str, list[int]] = {}
    shapes, rows = tensor_shapes(config), rows_of(family_of(config), config)
    for target in (name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2):
        if f"{target}.weight" not in rows:
            continue  # an embedding, which cannot have an adapter
        row, i = rows[f"{target}.weight"]
        pattern = row.gguf if file_format == "gguf" else row.hf
        name = pattern.format(i=i).removesuffix(".weight")
        sizes.setdefault(name, []).append(shapes[f"{target}.weight"][0])
        if row.by_head and file_format == "safetensors":
            by_head.add(name)
        if target in adapter.targets:
            groups.setdefault(name, {})[row.part[0]] = adapter.targets[target]
    joined = {name: join(members, sizes[name]) for name, members in groups.items()}
    for name in by_head & set(joined):
        a, b = joined[name]
        parts = b.reshape(len(sizes[name]), -1, config.head_dim, b.shape[1])
        joined[name] = a, np.ascontiguousarray(parts.swapaxes(0, 1)).reshape(b.shape)
    return joined


def join(members: Mapping[int, Pair], sizes: Sequence[int]) -> Pair:
    """Join the pairs of some parts to one; `sizes` are the numbers of outputs of all parts, in order."""
    if len(sizes) == 1:
        return members[0]
    order = sorted(members)
    first = members[order[0]][0]
    shared = all(np.array_equal(members[k][0], first) for k in order)
    ranks = [members[k][0].shape[0] for k in order]
    a = first if shared else np.concatenate([members[k][0] for k in order])
    b = np.zeros((sum(sizes), len(a)), np.float32)
    starts = np.cumsum([0, *sizes])
    columns = np.cumsum([0, *ranks])
    for n, k in enumerate(order):
        rows = slice(starts[k], starts[k + 1])
        b[rows, slice(None) if shared else slice(columns[n], columns[n + 1])] = members[k][1]
    return a, b


def split(pair: Pair, sizes: Sequence[int]) -> dict[int, Pair]:
    """Split the pair of a joined matrix into parts of these numbers of outputs, leaving out zero parts.

    A pair that is all zeros (an adapter before its first step) is kept in every part.
    """
    a, b = pair
    whole = np.split(b, np.cumsum(sizes[:-1]))
    if len(sizes) == 1 or not b.any():
        return dict(enumerate((a, rows) for rows in whole))
    pairs = {}
    for k, rows in enumerate(whole):
        used = rows.any(axis=0)
        if used.any():
            pairs[k] = (a[used], np.ascontiguousarray(rows[:, used]))
    return pairs
