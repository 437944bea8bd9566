"""Models of the families that tests/tiny.py does not write: transformers makes them, with random values.

Every parameter is random, gains and biases too, and small windows are far shorter than the tests' prompts.
`made_folder(path, "gemma2")` is a folder with a tokenizer, `MADE` the configurations.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.tiny_vocabulary import write_tokenizer

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_PAIRS = 6  # that a phi3 of these sizes rotates
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.02 * i for i in range(_PAIRS)],
    "long_factor": [1.0 + 0.5 * i for i in range(_PAIRS)],
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
MADE: dict[str, dict[str, Any]] = {
    "mistral": _SIZES | {"model_type": "mistral", "sliding_window": 16, "head_dim": 24},
    "ministral": _SIZES
    | {
        "model_type": "ministral",
        "sliding_window": 16,
        "head_dim": 24,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "llama-yarn": _SIZES | {"model_type": "llama", "rope_parameters": YARN},
    "gemma2": _SIZES
    | {
        "model_type": "gemma2",
        "num_hidden_layers": 4,
        "sliding_window": 16,
        "head_dim": 24,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3": _SIZES
    | {
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "sliding_window": 16,
        "head_dim": 24,
        "query_pre_attn_scalar": 24,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "phi3": _SIZES | {"model_type": "phi3", "sliding_window": 20},
    "phi3-long": _SIZES
    | {
        "model_type": "phi3",
        "original_max_position_embeddings": 64,
        "rope_parameters": LONG | {"rope_theta": 1e4, "partial_rotary_factor": 0.75},
    },
    "olmo2": _SIZES | {"model_type": "olmo2"},
    "granite": _SIZES
    | {
        "model_type": "granite",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.1,
        "residual_multiplier": 0.4,
        "logits_scaling": 3.0,
    },
    "smollm3": _SIZES | {"model_type": "smollm3", "num_hidden_layers": 5},
    "gpt_neox": {key: value for key, value in _SIZES.items() if key != "num_key_value_heads"}
    | {"model_type": "gpt_neox", "rotary_pct": 0.25},
    "gpt_neo": {
        key: value for key, value in _SIZES.items() if key.startswith(("vocab", "max", "hidden", "b"))
    }
    | {
        "model_type": "gpt_neo",
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 16,
        "eos_token_id": 2,
    },
}
IN_GGUF = tuple(name for name in MADE if name != "gpt_neo")


def made_folder(path: Path, name: str, seed: int = 1, tokenizer: bool = True, **keys: Any) -> Path:
    """Save a model with random values and return its folder; `keys` replace those of its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    said = deepcopy(MADE[name]) | keys  # transformers writes into inner tables
    config = AutoConfig.for_model(said.pop("model_type"), **said)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            elif any(word in parameter_name for word in ("embed", "wte", "wpe", "lm_head")):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(noise * 2 / parameter.shape[1] ** 0.5)
    model.save_pretrained(path)
    if tokenizer:
        write_tokenizer(path, "llama", said["vocab_size"])
    return path


def opened_reference(folder: Path) -> Any:
    """Open the model with transformers in float32, with the attention that computes what the words say."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def blocks_of(model: Any) -> Any:
    """Return the list of a transformers model's blocks."""
    inner = next(
        getattr(model, name) for name in ("model", "transformer", "gpt_neox") if hasattr(model, name)
    )
    return inner.h if hasattr(inner, "h") else inner.layers
