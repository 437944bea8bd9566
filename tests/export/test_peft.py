"""Adapters compared with PEFT: ours open there with equal logits, and PEFT's open here with equal values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.adapters.adapter import Adapter
from pophood.adapters.peft import read_adapter
from pophood.errors import BadFile, BadInput, NotFound, Unsupported
from pophood.export.adapter_writers import write_adapter
from pophood.export.merged import Merged
from pophood.formats.safetensors_write import write_safetensors
from pophood.model.bundle import open_bundle
from tests.export.adapters import logits, random_adapter, same
from tests.tiny import tiny_config, tiny_folder

peft = pytest.importorskip("peft", reason="needs Python package: peft")
IDS = [1, 2, 3, 4, 5, 77, 300]
# PEFT asks transformers by an older name. No other warning is ignored: PEFT warns of a wrong fan_in_fan_out.
OLD_NAME = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def base_model(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def peft_logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2 everywhere": ("gpt2", {}),
    "gpt2 q and v": ("gpt2", {"kinds": ("attn.q", "attn.v")}),
    "gpt2 rsLoRA": ("gpt2", {"scale": 6.0 / math.sqrt(4)}),
    "gpt2 one block": ("gpt2", {"kinds": ("attn.q", "mlp.up", "attn.out"), "blocks": (1,)}),
    "llama everywhere": ("llama", {}),
    "llama one block": ("llama", {"kinds": ("attn.k",), "blocks": (0,)}),
    "qwen2 rsLoRA": ("qwen2", {"scale": 6.0 / math.sqrt(4)}),
    "qwen3 odd scale": ("qwen3", {"scale": 0.3, "kinds": ("attn.q", "attn.out", "mlp.down")}),
}


@OLD_NAME
@pytest.mark.parametrize("case", CASES)
def test_ours_in_peft(tmp_path: Path, case: str) -> None:
    family, choices = CASES[case]
    bundle = open_bundle(tiny_folder(tmp_path / "base", family, ignored=False))
    adapter = random_adapter(bundle.config, **choices)
    write_adapter(tmp_path / "adapter", adapter, bundle.config)
    model = peft.PeftModel.from_pretrained(base_model(tmp_path / "base"), tmp_path / "adapter").eval()
    mine = logits(bundle.config, Merged(bundle.config, bundle.weights, [(adapter, 1.0)]), IDS)
    assert np.abs(peft_logits(model) - mine).max() < 1e-4
    assert np.abs(logits(bundle.config, bundle.weights, IDS) - mine).max() > 0.5
    wrapped = {name for name, module in model.named_modules() if type(module).__name__ == "Linear"}
    assert len({name.split(".lora_")[0] for name in wrapped if ".lora_" in name}) == len(
        {
            (t.rpartition(".")[0], ".attn.qkv" if family == "gpt2" and t[-1] in "qkv" else t)
            for t in adapter.targets
        }
    )


@pytest.mark.parametrize("case", CASES)
def test_ours_come_back(tmp_path: Path, case: str) -> None:
    family, choices = CASES[case]
    config = tiny_config(family)
    adapter = random_adapter(config, **choices)
    write_adapter(tmp_path / "tuned", adapter, config, "{{ messages }}")
    back = read_adapter(tmp_path / "tuned")
    assert back.targets.keys() == adapter.targets.keys()
    assert all(
        np.array_equal(x, y)
        for t in back.targets
        for x, y in zip(back.targets[t], adapter.targets[t], strict=True)
    )
    assert back.scale == pytest.approx(adapter.scale, rel=1e-15)
    assert (back.name, back.rank, back.base) == ("tuned", adapter.rank, adapter.base)
    write_adapter(tmp_path / "again", back, config)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "tuned" / name).read_bytes()


def theirs(folder: Path, family: str, **settings: Any) -> Any:
    """Save an adapter of a random model with PEFT, with B not zero; return the model."""
    import torch

    torch.manual_seed(0)
    tiny_folder(folder / "base", family, ignored=False)
    config = peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 7, **settings})
    model = peft.get_peft_model(base_model(folder / "base"), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return model


THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "gpt2 patterns": (
        "gpt2",
        {
            "target_modules": ["c_attn", "c_fc"],
            "fan_in_fan_out": True,
            "rank_pattern": {"c_attn": 6},
            "alpha_pattern": {"h.0.mlp.c_fc": 5, "c_attn": 9},
        },
    ),
    "llama all-linear": ("llama", {"target_modules": "all-linear"}),
    "llama rsLoRA, patterns": (
        "llama-untied",
        {
            "target_modules": ["q_proj", "down_proj"],
            "use_rslora": True,
            "rank_pattern": {"^model.layers.1.self_attn.q_proj": 2},
        },
    ),
    "llama, axolotl's patterns": (
        "llama-untied",
        {
            "target_modules": ["q_proj", "k_proj", "up_proj", "lm_head"],
            "rank_pattern": {r".*\.layers\.1\..*(q_proj|k_proj|v_proj|o_proj)$": 6},
            "alpha_pattern": {
                r"^model\.layers\.[12]\.mlp\.(up|gate)_proj$": 3,
                r".*\.layers\.1\..*(q_proj|k_proj|v_proj|o_proj)$": 31,
                "lm_(?:head|tail)": 2,
            },
        },
    ),
    "gpt2, patterns with classes and counts": (
        "gpt2",
        {
            "target_modules": ["c_attn", "c_fc"],
            "fan_in_fan_out": True,
            "rank_pattern": {r"h\.\d+\.attn\.c_\w{4}": 3, r".*c_fc": 2},
            "alpha_pattern": {r"h\.[^0]\..*?c_[a-f]+": 11},
        },
    ),
    "qwen2, the first pattern wins": (
        "qwen2",
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {".*_proj": 2, "v_proj": 5},
            "alpha_pattern": {"layers.0.self_attn.v_proj": 5, "(.*)": 9},
        },
    ),
    "qwen3, a dot is any character": (
        "qwen3",
        {"target_modules": ["q_proj", "k_proj"], "alpha_pattern": {"self.attn.q_proj": 5}},
    ),
    "llama output": ("llama-untied", {"target_modules": ["v_proj", "lm_head"], "layers_to_transform": None}),
    "qwen2 gaussian": ("qwen2", {"target_modules": ["k_proj", "gate_proj"], "init_lora_weights": "gaussian"}),
    "qwen3 some blocks": ("qwen3", {"target_modules": ["o_proj", "up_proj"], "layers_to_transform": [1]}),
}


@OLD_NAME
@pytest.mark.parametrize("case", THEIRS)
def test_theirs_here(tmp_path: Path, case: str) -> None:
    family, settings = THEIRS[case]
    theirs(tmp_path, family, **settings)
    # PEFT sorts patterns when it saves, so that the first one may be another in the file: what counts is how
    # PEFT reads the file.
    model = peft.PeftModel.from_pretrained(base_model(tmp_path / "base"), tmp_path / "adapter").eval()
    expected = peft_logits(model)
    bundle = open_bundle(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter")
    mine = logits(bundle.config, Merged(bundle.config, bundle.weights, [(adapter, 1.0)]), IDS)
    assert np.abs(expected - mine).max() < 1e-4
    assert np.abs(logits(bundle.config, bundle.weights, IDS) - mine).max() > 0.1
    write_adapter(tmp_path / "again", adapter, bundle.config)
    assert same(read_adapter(tmp_path / "again"), Adapter("again", **fields(adapter)))


def fields(adapter: Adapter) -> dict[str, Any]:
    return {name: getattr(adapter, name) for name in ("rank", "alpha", "scale", "targets", "base")}


def a_folder(path: Path, tensors: dict[str, Any] | None = None, **settings: Any) -> Path:
    path.mkdir()
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, **settings}
    (path / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    default = {f"{module}.lora_A.weight": np.ones((2, 8)), f"{module}.lora_B.weight": np.ones((8, 2))}
    given = {name: ("F32", np.asarray(v, np.float32)) for name, v in (tensors or default).items()}
    write_safetensors(path / "adapter_model.safetensors", given)
    return path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"init_lora_weights": "loftq", "loftq_config": {"bits": 4}}, "init_lora_weights is 'loftq'"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"use_something_new": 1}, "'use_something_new'"),
    ],
)
def test_what_is_no_plain_lora_is_named(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported) as caught:
        read_adapter(a_folder(tmp_path / "a", **settings))
    assert words in str(caught.value)


ROOT = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "kind", "words"),
    [
        ({f"{ROOT}.lora_A.weight": np.ones((2, 8))}, BadFile, "wanted A"),
        (
            {f"{ROOT}.lora_A.weight": np.ones((2, 8)), f"{ROOT}.lora_B.weight": np.ones((8, 3))},
            BadFile,
            "wanted A",
        ),
        (
            {f"{ROOT}.lora_A.weight": np.ones((3, 8)), f"{ROOT}.lora_B.weight": np.ones((8, 3))},
            BadFile,
            "rank 3",
        ),
        (
            {f"{ROOT}.lora_A.weight": np.full((2, 8), np.nan), f"{ROOT}.lora_B.weight": np.ones((8, 2))},
            BadFile,
            "NaN",
        ),
        ({f"{ROOT}.lora_magnitude_vector": np.ones(8)}, Unsupported, "lora_magnitude_vector"),
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": np.ones((2, 8))},
            Unsupported,
            "lora_embedding_A",
        ),
        (
            {
                "base_model.model.model.norm.lora_A.weight": np.ones((2, 8)),
                "base_model.model.model.norm.lora_B.weight": np.ones((8, 2)),
            },
            Unsupported,
            "model.norm",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, tensors: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        read_adapter(a_folder(tmp_path / "a", tensors))
    assert words in str(caught.value)


def test_missing_and_pickled_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"adapter_config\.json"):
        read_adapter(tmp_path)
    folder = a_folder(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    (folder / "adapter_model.bin").write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(Unsupported, match="never opens it"):
        read_adapter(folder)


def test_a_misfit_is_not_written(tmp_path: Path) -> None:
    adapter = random_adapter(tiny_config("gpt2"))
    with pytest.raises(BadInput, match="name the model that it was made for"):
        write_adapter(tmp_path / "a", adapter, tiny_config("gpt2", n_embd=32, head_dim=8))
    assert not (tmp_path / "a").exists()
