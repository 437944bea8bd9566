"""LoRA: it starts as the unchanged model, and agrees with peft in numbers and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pophood.errors import BadInput
from pophood.model.bundle import Bundle, open_bundle
from pophood.train.model.attention import WHOLE
from pophood.train.model.lora import LoraLinear, add_lora, lora_layers
from pophood.train.model.loss import cross_entropy
from pophood.train.model.precision import load_f32
from pophood.train.model.transformer import Model
from pophood.train.settings import LoraSettings
from tests.tiny import tiny_folder

TOKENS = torch.arange(24).reshape(2, 12)
POSITIONS = torch.arange(12).expand(2, 12)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("model") / "llama"
    tiny_folder(folder, "llama")
    return open_bundle(folder)


def adapted(bundle: Bundle, settings: LoraSettings, fill: bool = True) -> Model:
    model = Model(bundle.config)
    load_f32(model, bundle.weights)
    add_lora(model, settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in lora_layers(model).values() if fill else ():
            layer.lora_a.normal_(0, 0.1, generator=generator)
            layer.lora_b.normal_(0, 0.1, generator=generator)
    return model


def test_it_starts_as_the_unchanged_model(bundle: Bundle) -> None:
    plain = Model(bundle.config)
    load_f32(plain, bundle.weights)
    model = adapted(bundle, LoraSettings(), fill=False)
    assert torch.equal(model(TOKENS, POSITIONS, WHOLE), plain(TOKENS, POSITIONS, WHOLE))
    assert {name.rsplit(".", 1)[1] for name, p in model.named_parameters() if p.requires_grad} == {
        "lora_a",
        "lora_b",
    }


# peft uses a deprecated name of transformers.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("rslora", [False, True])
def test_numbers_and_gradients_agree_with_peft(bundle: Bundle, rslora: bool) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = adapted(bundle, LoraSettings(rank=4, alpha=8, rslora=rslora))
    theirs: Any = AutoModelForCausalLM.from_pretrained(bundle.path, dtype=torch.float32)
    names = {"q_proj": "attn.q", "k_proj": "attn.k", "v_proj": "attn.v", "o_proj": "attn.out"}
    names |= {"gate_proj": "mlp.gate", "up_proj": "mlp.up", "down_proj": "mlp.down"}
    theirs = get_peft_model(
        theirs, LoraConfig(r=4, lora_alpha=8, use_rslora=rslora, target_modules=list(names))
    )
    layers, pairs = lora_layers(model), []
    for name, module in theirs.named_modules():
        if name.rsplit(".", 1)[-1] in names:
            block = int(name.split(".layers.")[1].split(".")[0])
            ours = layers[f"blocks.{block}.{names[name.rsplit('.', 1)[-1]]}"]
            pairs += [
                (ours.lora_a, module.lora_A.default.weight),
                (ours.lora_b, module.lora_B.default.weight),
            ]
            module.lora_A.default.weight.data.copy_(ours.lora_a)
            module.lora_B.default.weight.data.copy_(ours.lora_b)
    assert len(pairs) == 2 * len(layers)
    loss = cross_entropy(model(TOKENS, POSITIONS, WHOLE), model.output_weight, TOKENS, 1 / 24)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = torch.nn.functional.cross_entropy(theirs(TOKENS).logits.flatten(0, 1), TOKENS.flatten())
    expected.backward()  # type: ignore[no-untyped-call]
    assert abs(float(loss.detach()) - float(expected.detach())) < 1e-5
    for mine, reference in pairs:
        assert (mine.grad - reference.grad).abs().max() <= 1e-4 * reference.grad.abs().max()


def test_dropout_applies_to_the_branch_alone(bundle: Bundle) -> None:
    """With B at zero the branch is zero, with dropout or without; otherwise dropout changes the output."""
    plain = Model(bundle.config)
    load_f32(plain, bundle.weights)
    empty = adapted(bundle, LoraSettings(rank=4, dropout=0.5), fill=False).train()
    assert torch.allclose(empty(TOKENS, POSITIONS, WHOLE), plain(TOKENS, POSITIONS, WHOLE), atol=1e-5)
    filled = adapted(bundle, LoraSettings(rank=4, dropout=0.5))
    with torch.no_grad():
        learning = filled.train()(TOKENS, POSITIONS, WHOLE)
        using = filled.eval()(TOKENS, POSITIONS, WHOLE)
    assert (learning - using).abs().max() > 0.05 * using.abs().max()


def layer_of(dropout: float, generator: torch.Generator) -> LoraLinear:
    """A layer of 40 x 24 with a branch of rank 4 that is not zero."""
    layer = LoraLinear(torch.nn.Linear(24, 40, bias=False), LoraSettings(rank=4, alpha=8, dropout=dropout))
    with torch.no_grad():
        assert isinstance(layer.weight, torch.Tensor)
        for parameter in (layer.weight, layer.lora_a, layer.lora_b):
            parameter.normal_(0, 0.5, generator=generator)
    return layer


@pytest.mark.parametrize("dropout", [0.1, 0.3, 0.5, 0.8])
def test_the_mean_over_masks_is_the_branch_without_dropout(dropout: float) -> None:
    """Inputs that are not dropped are scaled by 1 / (1 - p), so the mean stays the same."""
    generator = torch.Generator().manual_seed(5)
    layer, x = layer_of(dropout, generator), torch.randn(6, 24, generator=generator)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = layer.eval()(x)
        made = layer.train()(x.repeat(20_000, 1)).view(20_000, 6, 40)
    spread = made.std(0) / 20_000**0.5
    assert float(spread.min()) > 0, "every output is changed by some mask"
    assert float(((made.mean(0) - expected).abs() / spread).max()) < 5
    assert isinstance(layer.weight, torch.Tensor)
    base = torch.nn.functional.linear(x, layer.weight)
    assert (expected - base).abs().max() > 1, "the branch contributes"


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_agrees_with_peft_for_the_same_seed(dropout: float) -> None:
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    generator = torch.Generator().manual_seed(6)
    layer, x = layer_of(dropout, generator).train(), torch.randn(5, 24, generator=generator)
    base = torch.nn.Linear(24, 40, bias=False)
    assert isinstance(layer.weight, torch.Tensor)
    base.weight.data.copy_(layer.weight)
    theirs: Any = Linear(
        base,
        "default",
        config=LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout),
        r=4,
        lora_alpha=8,
        lora_dropout=dropout,
    ).train()
    theirs.lora_A.default.weight.data.copy_(layer.lora_a)
    theirs.lora_B.default.weight.data.copy_(layer.lora_b)
    torch.manual_seed(11)
    ours = layer(x)
    torch.manual_seed(11)
    reference = theirs(x)
    assert torch.allclose(ours, reference, rtol=1e-5, atol=1e-5)
    ours.square().sum().backward()
    reference.square().sum().backward()
    for mine, other in ((layer.lora_a, theirs.lora_A), (layer.lora_b, theirs.lora_B)):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, other.default.weight.grad, rtol=1e-4, atol=1e-4)


def test_an_unknown_target_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BadInput, match=r"no matrix is called attn\.w; there are: attn\.k, .*mlp\.up"):
        adapted(bundle, LoraSettings(targets=("attn.w",)))
