"""Buffers: whatever holds an array keeps it, what nobody holds comes back, and few lie about."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pophood.train.model import buffer_pool as buffers
from pophood.train.model.buffer_pool import SMALL, SPARE, empty, empty_like


@pytest.fixture(autouse=True)
def none_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_known", {})


def address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def test_what_nobody_holds_is_used_again() -> None:
    first = empty(512, 1024)
    place = address(first)
    del first
    again = empty(1024, 512)
    assert address(again) == place
    assert again.shape == (1024, 512)
    assert again.dtype is torch.bfloat16
    assert again.is_contiguous()
    assert address(empty_like(again)) != place


class _Keeps(torch.autograd.Function):
    """Saves an array of `empty` for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        kept = empty(SMALL).fill_(3.0)
        ctx.save_for_backward(kept)
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        d_x: Tensor = gradients[0] * kept[0]
        return d_x


def test_views_arrays_and_saved_tensors_hold_it() -> None:
    view = empty(2, SMALL)[1]
    seen = empty(2 * SMALL).view(torch.int16).numpy()
    view.fill_(1.0)
    seen[:] = 7
    y = _Keeps.apply(torch.ones(1, requires_grad=True))  # type: ignore[no-untyped-call]
    others = [empty(2 * SMALL).zero_() for _ in range(3)] + [empty(SMALL).zero_() for _ in range(3)]
    assert bool((view == 1.0).all())
    assert (seen == 7).all()
    assert torch.autograd.grad(y, y.grad_fn.next_functions[0][0].variable)[0].item() == 3.0
    assert len({address(x) for x in others}) == 6


@given(st.lists(st.tuples(st.sampled_from((SMALL, SMALL + 1, 3 * SMALL, 7)), st.booleans()), max_size=25))
def test_no_two_that_live_share_memory(wishes: list[tuple[int, bool]]) -> None:
    alive: list[Tensor] = []
    for number, (size, lets_go) in enumerate(wishes):
        if lets_go and alive:
            alive.pop(0)
        alive.append(empty(size).fill_(float(number)))
    assert len({address(x) for x in alive}) == len(alive)
    for x in alive:
        assert bool((x == x[0]).all())


def test_only_a_few_free_ones_are_kept() -> None:
    many = [empty(SMALL) for _ in range(9)]
    assert len(buffers._known[SMALL]) == 9
    many.clear()
    empty(SMALL)
    assert len(buffers._known[SMALL]) == 1 + SPARE


def test_sizes_that_differ_by_little_share_a_buffer() -> None:
    for size in range(4 * SMALL + 1, 5 * SMALL, 50_000):
        empty(size)
    assert [*buffers._known] == [5 * SMALL]


def test_without_a_count_of_holders_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_holders", None)
    first = empty(SMALL)
    assert address(first) != address(empty(SMALL))
    assert buffers._known == {}
