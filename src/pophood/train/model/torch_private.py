"""The private functions of torch that training uses (small: nothing else belongs here).

Any release of torch may remove one. tests/train/test_torch_private.py says what breaks without each, and
pyproject.toml bounds the versions of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Returns how many tensors and storages hold a storage, saved tensors and NumPy views included.
storage_use_count: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)


def fused_adamw(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments: list[dict[str, Tensor]],
    **options: Any,
) -> None:
    """Update float32 parameters and moments in place: the operation behind torch.optim.AdamW(fused=True).

    The options are lr, beta1, beta2, eps and weight_decay.
    """
    torch._fused_adamw_(
        parameters,
        gradients,
        [state["exp_avg"] for state in moments],
        [state["exp_avg_sq"] for state in moments],
        [],
        [state["step"] for state in moments],
        amsgrad=False,
        maximize=False,
        **options,
    )


def saved_tensor_hooks_active() -> bool:
    """Return whether saved tensors go through hooks now, as they do inside gradient checkpointing."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def has_amx() -> bool:
    """Return whether this processor multiplies bfloat16 tiles (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


def has_bf16_instructions() -> bool:
    """Return whether this processor multiplies in bfloat16; elsewhere that is emulated, and far slower."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or has_amx()
