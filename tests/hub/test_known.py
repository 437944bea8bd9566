"""The catalogue's parameter counts agree with its shapes."""

from __future__ import annotations

import pytest

from pophood.config import ModelConfig, Rope
from pophood.hub import catalogue
from pophood.hub.known_models import KnownModel


def config_of(model: KnownModel) -> ModelConfig:
    """Build a family's config with the catalogue's sizes."""
    gpt2 = model.family[0] == "gpt2"
    gemma3 = model.title.startswith("Gemma 3")
    return ModelConfig(
        architecture="gpt2" if gpt2 else "llama",
        n_layer=model.n_layer,
        n_head=model.n_head,
        n_kv_head=model.n_kv_head,
        n_embd=model.n_embd,
        head_dim=256 if gemma3 else model.n_embd // model.n_head,
        n_inner=model.n_inner,
        vocab_size=model.vocab_size,
        n_positions=model.n_positions,
        norm="layer" if gpt2 else "rms",
        norm_eps=1e-5,
        activation="gelu_tanh" if gpt2 else "silu",
        gated_mlp=not gpt2,
        rope=None if gpt2 else Rope(),
        qkv_bias=gpt2,
        attn_out_bias=gpt2,
        mlp_bias=gpt2,
        qk_norm="head" if gemma3 else None,
        tied_output=True,
        norm_places="both" if gemma3 else "before",
    )


@pytest.mark.parametrize("name", catalogue)
def test_parameters_are_the_sum_of_the_shapes(name: str) -> None:
    assert config_of(catalogue[name]).n_params == catalogue[name].n_params


def test_the_talks_facts() -> None:
    sizes = [catalogue[name].n_params for name in catalogue["gpt2"].family]
    assert sizes == [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]
    small = catalogue["gpt2"]
    assert (small.announced, catalogue["gpt2-xl"].weights_public) == ("2019-02-14", "2019-11-05")
    assert "WebText" in small.training_data
    assert "8 million documents, 40 GB" in small.training_data
    assert (small.n_layer, small.n_head, small.n_embd, small.n_positions, small.vocab_size) == (
        12,
        12,
        768,
        1024,
        50257,
    )
    assert all(model.links and model.licence for model in catalogue.values())
