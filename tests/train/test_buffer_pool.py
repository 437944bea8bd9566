"""The buffer pool reuses a buffer when nothing holds it any more, never earlier, and keeps few spare ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pophood.train.model import buffer_pool, torch_private
from pophood.train.model.buffer_pool import SMALL, SPARE, take, take_like


@pytest.fixture(autouse=True)
def empty_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_pool, "_pool", {})


def address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def test_a_buffer_without_holders_is_reused() -> None:
    first = take(512, 1024)
    place = address(first)
    del first
    again = take(1024, 512)
    assert address(again) == place
    assert again.shape == (1024, 512)
    assert again.dtype is torch.bfloat16
    assert again.is_contiguous()
    assert address(take_like(again)) != place


class _SavesBuffer(torch.autograd.Function):
    """Saves an array of `take` for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        saved = take(SMALL).fill_(3.0)
        ctx.save_for_backward(saved)
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (saved,) = ctx.saved_tensors
        d_x: Tensor = gradients[0] * saved[0]
        return d_x


def test_views_arrays_and_saved_tensors_hold_a_buffer() -> None:
    view = take(2, SMALL)[1]
    seen = take(2 * SMALL).view(torch.int16).numpy()
    view.fill_(1.0)
    seen[:] = 7
    y = _SavesBuffer.apply(torch.ones(1, requires_grad=True))  # type: ignore[no-untyped-call]
    others = [take(2 * SMALL).zero_() for _ in range(3)] + [take(SMALL).zero_() for _ in range(3)]
    assert bool((view == 1.0).all())
    assert (seen == 7).all()
    assert torch.autograd.grad(y, y.grad_fn.next_functions[0][0].variable)[0].item() == 3.0
    assert len({address(x) for x in others}) == 6


@given(st.lists(st.tuples(st.sampled_from((SMALL, SMALL + 1, 3 * SMALL, 7)), st.booleans()), max_size=25))
def test_live_arrays_share_no_memory(requests: list[tuple[int, bool]]) -> None:
    alive: list[Tensor] = []
    for number, (size, release) in enumerate(requests):
        if release and alive:
            alive.pop(0)
        alive.append(take(size).fill_(float(number)))
    assert len({address(x) for x in alive}) == len(alive)
    for x in alive:
        assert bool((x == x[0]).all())


def test_few_spare_buffers_are_kept() -> None:
    many = [take(SMALL) for _ in range(9)]
    assert len(buffer_pool._pool[SMALL]) == 9
    many.clear()
    take(SMALL)
    assert len(buffer_pool._pool[SMALL]) == 1 + SPARE


def test_similar_sizes_share_a_buffer() -> None:
    for size in range(4 * SMALL + 1, 5 * SMALL, 50_000):
        take(size)
    assert [*buffer_pool._pool] == [5 * SMALL]


def test_nothing_is_pooled_without_a_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_private, "storage_use_count", None)
    first = take(SMALL)
    assert address(first) != address(take(SMALL))
    assert buffer_pool._pool == {}
