"""A multimodal Gemma 3 made by transformers: its text model is computed, the other tensors are named."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pophood.cli.app import pophood as command
from pophood.export.job import export_model
from pophood.model.bundle import open_bundle
from pophood.model.engine import Engine
from tests.made_families import MADE
from tests.tiny_vocabulary import write_tokenizer

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
IDS = np.random.default_rng(2).integers(10, 500, 60).tolist()


def made(folder: Path) -> Any:
    """Save a multimodal model with random values, and return it."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {key: value for key, value in deepcopy(MADE["gemma3"]).items() if key != "model_type"}
    config = Gemma3Config(
        text_config=text, vision_config=VISION, mm_tokens_per_image=4, image_token_index=5, boi_token_index=6
    )
    torch.manual_seed(4)
    model = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            scale = 0.1 if "embed" in name else 2 / max(parameter.shape[-1], 1) ** 0.5
            parameter.copy_(parameter + 0.3 * noise if parameter.ndim == 1 else scale * noise)
    model.save_pretrained(folder)
    write_tokenizer(folder, "llama", text["vocab_size"])
    return model


@pytest.mark.filterwarnings("ignore")
def test_the_text_model_is_computed_and_the_vision_tensors_are_named(tmp_path: Path) -> None:
    import torch

    model = made(tmp_path / "gemma")
    bundle = open_bundle(tmp_path / "gemma")
    config = bundle.config
    (remark,) = (line for line in bundle.remarks if "only the text model is computed" in line)
    assert "vision_tower" in remark and "are left out" in remark
    full, local = config.rope, config.block_attention[0].rope
    assert full is not None and local is not None
    assert (full.scaling, full.factor, local.scaling) == ("linear", 8.0, "none"), "only full attention"
    engine = Engine(config, "f32")
    engine.load(bundle.weights)
    ours = engine.logits([(engine.new_sequence(), IDS)], rows="all")
    with torch.no_grad():
        theirs = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(ours - theirs).max() < 1e-3
    done = CliRunner().invoke(command, ["run", "The sun", "-m", str(tmp_path / "gemma"), "--max-tokens", "2"])
    assert done.exit_code == 0 and "only the text model is computed" in done.stderr, done.stderr
    export_model(bundle, tmp_path / "text", threads=1)
    export_model(bundle, tmp_path / "text.gguf", threads=1)
    for written in (tmp_path / "text", tmp_path / "text.gguf"):
        again = open_bundle(written)
        assert not [line for line in again.remarks if "text model" in line]
        engine = Engine(again.config, "f32")
        engine.load(again.weights)
        assert np.array_equal(engine.logits([(engine.new_sequence(), IDS)], rows="all"), ours)
