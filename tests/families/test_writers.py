"""The fixtures themselves: transformers reads the folders and llama.cpp the GGUF files, with equal results.

So the two writers agree with two independent readers; our readers are compared with both in
comparing values (test_tensors.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.llama import open_llama
from tests.tiny import FAMILIES, reference, tiny_config, tiny_folder, tiny_gguf, vocabulary

# llama.cpp reads GELU from a table of float16 values. The rest differs by up to 2.3e-5 (AVX-512).
TOLERANCE = dict.fromkeys(FAMILIES, 4e-5) | {"gpt2": 5e-3}


def llama_cpp_logits(path: Path, ids: list[int]) -> NDArray[np.float32]:
    f32: dict[str, Any] = {"type_k": 0, "type_v": 0, "flash_attn": False}
    model = open_llama(path, n_ctx=128, logits_all=True, n_threads=2, **f32)
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)], np.float32)
    model.close()
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_both_authorities_compute_the_same(family: str, tmp_path: Path) -> None:
    import torch

    ids = np.random.default_rng(0).integers(0, tiny_config(family).vocab_size, 48).tolist()
    with torch.no_grad():
        theirs = reference(tiny_folder(tmp_path / "folder", family))(torch.tensor([ids])).logits[0].numpy()
    logits = llama_cpp_logits(tiny_gguf(tmp_path / "m.gguf", family), ids)
    assert theirs.std() > 0.3, "too dull to tell anything apart"
    assert np.abs(logits - theirs).max() < TOLERANCE[family]


def test_the_small_vocabularies_are_gpt2s_own() -> None:
    words = vocabulary("gpt2", 50_257)
    assert len(words.tokens) == 50_257 and len(words.merges) == 50_000
    assert (words.ids["Ġthe"], words.ids["hello"], words.ids["<|endoftext|>"]) == (262, 31373, 50256)
    assert vocabulary("qwen", 400).tokens[:300] == words.tokens[:300]
    assert len(vocabulary("llama", 512).tokens) == 512
