"""The example of docs/formats.md, a family in one table, computes what transformers computes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pophood.families import FAMILIES
from pophood.model.bundle import open_weights
from pophood.model.engine import Engine
from tests.conftest import ROOT
from tests.made_families import made_folder, opened_reference


@pytest.mark.filterwarnings("ignore")
def test_the_example_computes_what_transformers_computes(tmp_path: Path) -> None:
    import torch

    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "FAMILIES[" in code)
    try:
        exec(compile(example, "docs/formats.md", "exec"), {})
        folder = made_folder(tmp_path / "model", "olmo2", tokenizer=False, model_type="seed_oss", head_dim=24)
        opened = open_weights(folder)
        assert opened.config.architecture == "seed_oss"
        assert (opened.config.qkv_bias, opened.config.attn_out_bias) == (True, False)
        engine = Engine(opened.config, "f32")
        engine.load(opened.weights)
        ids = np.random.default_rng(4).integers(0, 500, 40).tolist()
        with torch.no_grad():
            theirs = opened_reference(folder)(torch.tensor([ids])).logits[0].numpy()
        ours = engine.logits([(engine.new_sequence(), ids)], rows="all")
        assert np.abs(ours - theirs).max() < 1e-3
    finally:
        FAMILIES.pop("seed_oss", None)
